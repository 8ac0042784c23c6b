"""Which score is known for which problem."""

import math

import pytest
import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem, ProblemBatch, scale
from dop_lightning.problems.scoring import CURVES, DENSITY_THRESHOLD, RANK_TOLERANCE, Scorer
from tests.suites.part import draw


def image_problem(seed: int, **options) -> Problem:
    truth = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))
    corruption = torch.zeros(3, 16, 16)
    corruption[0, :4] = 0.5
    given = {"truth": truth, "true_corruption": corruption, "data_range": 1.0, "seed": seed, **options}
    return Problem(f"image-{seed}", truth + corruption, **given)


def matrix_problem(seed: int, **options) -> Problem:
    U = draw(seed, (6, 2))
    truth, corruption = U @ U.T, torch.zeros(6, 6, dtype=torch.float64)
    corruption[0] = 10.0
    return Problem(f"matrix-{seed}", truth + corruption, **{"truth": truth, "true_corruption": corruption, **options})


def truths(problems: ProblemBatch) -> Tensor:
    return torch.stack([p.truth for p in problems if p.truth is not None])


def true_corruptions(problems: ProblemBatch) -> Tensor:
    return torch.stack([p.true_corruption for p in problems if p.true_corruption is not None])


# ------------------------------------------------------------------------------------------------------------- scale


OF_CORRUPTION = ("relative_error_corruption", "true_density", "support_precision", "support_recall")
"""Tags of what is known of s* and is no curve."""


def test_scale_is_the_known_range() -> None:
    assert scale(Problem("a", torch.full((2, 2), 7.0), data_range=3.0)) == 3.0


def test_scale_is_the_median_of_observed_entries() -> None:
    y = torch.tensor([1.0, -2.0, 3.0, 100.0, 200.0])
    assert scale(Problem("a", y)) == 3.0
    assert scale(Problem("a", y, mask=torch.tensor([True, True, False, False, True]))) == 2.0


def test_scale_of_mostly_zeros_is_their_largest() -> None:
    assert scale(Problem("a", torch.tensor([0.0, 0.0, 0.0, -4.0]))) == 4.0
    assert scale(Problem("a", torch.zeros(4))) == 1.0


# ------------------------------------------------------------------------------------------------------------ images


def test_scores_of_images() -> None:
    problems = ProblemBatch([image_problem(k) for k in range(2)])
    X, s = truths(problems) + 0.1, true_corruptions(problems)
    scores = Scorer(problems).curves(X, s, torch.tensor([1.5, 2.5]))
    assert len(scores) == 2
    for k, of_problem in enumerate(scores):
        assert set(of_problem) == set(CURVES)
        assert of_problem["psnr"] == pytest.approx(20.0, abs=1e-4)
        assert of_problem["loss"] == 1.5 + k
        assert of_problem["corruption_density"] == pytest.approx(1 / 12)
        assert of_problem["relative_error"] == pytest.approx(float(0.1 * 768**0.5 / truths(problems)[k].norm()))
        assert 0 < of_problem["ssim"] < 1


def test_final_scores_of_images() -> None:
    problems = ProblemBatch([image_problem(k) for k in range(2)])
    X, s = truths(problems), true_corruptions(problems)
    for of_problem in Scorer(problems).final(X + 0.1, 0.5 * s, torch.zeros(2)):
        assert set(of_problem) == {*CURVES, *OF_CORRUPTION, "input_psnr"}
        assert of_problem["relative_error_corruption"] == pytest.approx(0.5)
        assert of_problem["true_density"] == pytest.approx(1 / 12)
        assert (of_problem["support_precision"], of_problem["support_recall"]) == (1.0, 1.0)
        assert of_problem["input_psnr"] == pytest.approx(-10 * math.log10(0.25 / 12), abs=1e-4)


def test_range_enters_the_scores_of_images() -> None:
    problems = ProblemBatch([image_problem(0, data_range=10.0)])
    (scores,) = Scorer(problems).curves(truths(problems) + 0.1, true_corruptions(problems), torch.zeros(1))
    assert scores["psnr"] == pytest.approx(40.0, abs=1e-4)
    assert scores["corruption_density"] == 0.0  # 0.5 is below a tenth of the range


def test_three_dimensions_without_a_range_are_not_an_image() -> None:
    problems = ProblemBatch([image_problem(0, data_range=None)])
    (scores,) = Scorer(problems).final(truths(problems), true_corruptions(problems), torch.zeros(1))
    assert {"psnr", "ssim", "input_psnr", "rank"}.isdisjoint(scores)
    assert scores["relative_error"] == 0.0


# ---------------------------------------------------------------------------------------------------------- matrices


def test_scores_of_matrices() -> None:
    problems = ProblemBatch(
        [matrix_problem(0), Problem("other", draw(9, (6, 6)), truth=torch.eye(6, dtype=torch.float64))]
    )
    X = truths(problems) * torch.tensor([1.1, 0.7]).view(2, 1, 1)
    s = torch.zeros(2, 6, 6, dtype=torch.float64)
    s[0, 0, :3] = 10.0
    first, second = Scorer(problems).final(X, s, torch.ones(2))
    assert set(first) == {
        "loss",
        "relative_error",
        "corruption_density",
        "relative_error_corruption",
        "true_density",
        "support_precision",
        "support_recall",
        "rank",
    }
    assert set(second) == {"loss", "relative_error", "corruption_density", "rank"}
    assert first["relative_error"] == pytest.approx(0.1)
    assert second["relative_error"] == pytest.approx(0.3)
    assert first["corruption_density"] == pytest.approx(3 / 36)
    assert first["true_density"] == pytest.approx(6 / 36)
    assert first["relative_error_corruption"] == pytest.approx(0.5**0.5)
    assert (first["rank"], second["rank"]) == (2, 6)


def test_rank_counts_directions_above_the_tolerance() -> None:
    problems = ProblemBatch([Problem("a", torch.ones(3, 3))])
    X = torch.diag(torch.tensor([1.0, 1.2 * RANK_TOLERANCE, 0.8 * RANK_TOLERANCE])).unsqueeze(0)
    (scores,) = Scorer(problems).final(X, torch.zeros(1, 3, 3), torch.zeros(1))
    assert scores["rank"] == 2


def test_density_uses_the_scale_of_each_problem() -> None:
    problems = ProblemBatch([Problem("small", torch.ones(4)), Problem("large", torch.full((4,), 100.0))])
    s = torch.tensor([1.2, 0.8, -1.2, 0.0]).expand(2, 4) * DENSITY_THRESHOLD
    small, large = Scorer(problems).curves(torch.zeros(2, 4), s, torch.zeros(2))
    assert small["corruption_density"] == 0.5
    assert large["corruption_density"] == 0.0


def test_density_counts_observed_entries_only() -> None:
    mask = torch.tensor([True, True, False, False])
    true = torch.tensor([3.0, 0.0, 0.0, 0.0])
    problems = ProblemBatch(
        [Problem("a", torch.ones(4), mask=mask, true_corruption=true), Problem("b", torch.ones(4), mask=~mask)]
    )
    s = torch.tensor([[5.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    first, second = Scorer(problems).final(torch.zeros(2, 4), s, torch.zeros(2))
    assert first["corruption_density"] == 1.0
    assert second["corruption_density"] == 0.5
    assert first["true_density"] == 0.5
    assert "true_density" not in second


# --------------------------------------------------------------------------------------------------- what is not known


def test_unknown_scores_are_omitted() -> None:
    known, unknown = image_problem(0), image_problem(1, truth=None, true_corruption=None)
    for problems in ([known, unknown], [unknown, known]):
        batch = ProblemBatch(problems)
        X, s = batch.observation + 0.1, torch.zeros_like(batch.observation)
        by_name = dict(zip(batch.names, Scorer(batch).final(X, s, torch.zeros(2)), strict=True))
        assert set(by_name["image-1"]) == {"loss", "corruption_density"}
        assert {*CURVES, *OF_CORRUPTION, "input_psnr"} - {"support_precision"} == set(by_name["image-0"])
        assert by_name["image-0"]["relative_error_corruption"] == 1.0
        (alone,) = Scorer(ProblemBatch([known])).final(X[:1] * 0 + known.observation + 0.1, s[:1], torch.zeros(1))
        assert by_name["image-0"] == pytest.approx(alone)


def test_undefined_scores_are_omitted() -> None:
    problems = ProblemBatch([matrix_problem(0), Problem("zero", draw(1, (6, 6)), truth=torch.zeros(6, 6))])
    X = torch.stack([torch.full((6, 6), torch.nan), torch.ones(6, 6)])
    first, second = Scorer(problems).final(X, torch.zeros(2, 6, 6), torch.tensor([torch.nan, 1.0]))
    assert {"loss", "relative_error", "rank"}.isdisjoint(first)
    assert "relative_error" not in second  # of a truth that is 0
    assert (second["loss"], second["rank"]) == (1.0, 1.0)


def test_images_too_small_for_a_window_have_no_ssim() -> None:
    truth = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    problems = ProblemBatch([Problem("tiny", truth, truth=truth, data_range=1.0)])
    (scores,) = Scorer(problems).curves(truth[None] + 0.1, torch.zeros(1, 1, 8, 8), torch.zeros(1))
    assert "ssim" not in scores
    assert scores["psnr"] == pytest.approx(20.0, abs=1e-4)


def test_input_psnr_requires_observations_of_the_signal_shape() -> None:
    truth = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(0))
    problems = ProblemBatch([Problem("measured", torch.ones(7), truth=truth, data_range=1.0)])
    (scores,) = Scorer(problems).final(truth[None] + 0.1, torch.zeros(1, 7), torch.zeros(1))
    assert "input_psnr" not in scores
    assert scores["psnr"] == pytest.approx(20.0, abs=1e-4)
