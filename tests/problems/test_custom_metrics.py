"""Metrics of the user: what they receive, what they may return, and what is refused."""

import copy
import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import (
    MeanAbsoluteError,
    MeanMetric,
    Metric,
    MetricCollection,
    MinMaxMetric,
    PearsonCorrCoef,
    R2Score,
)
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure, TotalVariation

from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.metric_calls import ARGUMENTS, KNOWN
from dop_lightning.problems.metrics import NumericalRank, RelativeError, psnr
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import Scorer
from dop_lightning.problems.tags import CURVES, FINAL, RESERVED
from tests.problems.test_scoring import image_problem, matrix_problem, truths


def scores_of(problems: list[Problem], metrics: Any, error: float = 0.1, corruption: bool = True) -> list[dict]:
    """The custom scores of recoveries that are off by a constant, and a corruption of 0.25 everywhere."""
    batch = ProblemBatch(problems)
    signal = torch.stack([p.observation.clone() if p.truth is None else p.truth + error for p in problems])
    s = torch.full_like(batch.observation, 0.25)
    scorer = Scorer(batch, corruption, CustomMetrics(metrics))
    known = {*CURVES, *FINAL, "psnr_average"}
    return [
        {tag: value for tag, value in of_problem.items() if tag not in known}
        for of_problem in scorer.curves(signal, s, torch.zeros(len(batch)))
    ]


def score_of(problem: Problem, metric: Any, **options: Any) -> Any:
    return scores_of([problem], {"own": metric}, **options)[0]


class Counting(Metric):
    """How many problems it has seen since its reset."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds: Tensor) -> None:
        self.seen += len(preds)

    def compute(self) -> Tensor:
        return self.seen


class Scaled:
    """A callable class with a setting."""

    higher_is_better = True

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, signal: Tensor, truth: Tensor) -> Tensor:
        return self.factor * (signal - truth).mean()


def mean_error(signal: Tensor, truth: Tensor) -> Tensor:
    return (signal - truth).abs().mean()


# ------------------------------------------------------------------------------------------------------- torchmetrics


def test_torchmetric_scores_images_separately() -> None:
    problems = [image_problem(0), image_problem(1)]
    both = scores_of(problems, {"own": StructuralSimilarityIndexMeasure(data_range=1.0)})
    for problem, of_problem in zip(problems, both, strict=True):
        alone = StructuralSimilarityIndexMeasure(data_range=1.0)
        alone.update((problem.truth + 0.1)[None], problem.truth[None])  # type: ignore[operator, index]
        assert of_problem == {"own": pytest.approx(float(alone.compute()), abs=1e-6)}
    assert both[0] != both[1]


def test_state_of_other_problems_and_evaluations_is_reset() -> None:
    problems = [matrix_problem(k) for k in range(3)]
    batch = ProblemBatch(problems)
    scorer = Scorer(batch, metrics=CustomMetrics({"own": Counting()}))
    for _ in range(2):
        assert [s["own"] for s in scorer.curves(truths(batch), batch.observation, torch.zeros(3))] == [1.0] * 3


def test_metric_of_the_user_is_not_changed() -> None:
    mine = MeanAbsoluteError()
    mine.update(torch.tensor([1.0]), torch.tensor([3.0]))
    assert score_of(image_problem(0), mine) == {"own": pytest.approx(0.1, abs=1e-6)}
    assert float(mine.compute()) == 2.0
    assert mine.sync_on_compute


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (RelativeError(), lambda x, t: (x - t).norm() / t.norm()),
        (NumericalRank(), lambda x, t: torch.linalg.matrix_rank(x)),
        (MeanAbsoluteError(), lambda x, t: (x - t).abs().mean()),
        (PearsonCorrCoef(), lambda x, t: torch.corrcoef(torch.stack([x.flatten(), t.flatten()]))[0, 1]),
        (R2Score(), lambda x, t: 1 - (x - t).square().sum() / (t - t.mean()).square().sum()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Metric) else "",
)
def test_torchmetrics_accept_matrices(metric: Metric, expected: Callable[[Tensor, Tensor], Tensor]) -> None:
    problem = matrix_problem(0)
    assert problem.truth is not None
    value = float(expected(problem.truth + 0.1, problem.truth))
    assert score_of(problem, metric) == {"own": pytest.approx(value, rel=1e-5)}


def test_a_torchmetric_of_one_tensor_needs_no_truth() -> None:
    problem = image_problem(0, truth=None)
    y = problem.observation
    expected = float(y.diff(dim=1).abs().sum() + y.diff(dim=2).abs().sum())
    assert score_of(problem, TotalVariation()) == {"own": pytest.approx(expected, rel=1e-5)}


def test_collection_is_expanded_to_its_members() -> None:
    members = {"MAE": MeanAbsoluteError(), "peak": PeakSignalNoiseRatio(data_range=1.0)}
    named = scores_of([image_problem(0)], {"own": MetricCollection(members)})[0]
    assert named == {"own_mae": pytest.approx(0.1, abs=1e-6), "own_peak": pytest.approx(20.0, abs=1e-3)}
    listed = scores_of([image_problem(0)], [MetricCollection([MeanAbsoluteError()])])[0]
    assert list(listed) == ["mean_absolute_error"]


def test_a_wrapper_may_return_a_dictionary() -> None:
    problems = [image_problem(0), image_problem(1)]
    for of_problem in scores_of(problems, {"own": MinMaxMetric(MeanAbsoluteError())}):
        assert of_problem == pytest.approx({"own_raw": 0.1, "own_max": 0.1, "own_min": 0.1}, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------- functions


def test_function_receives_the_arguments_that_it_names() -> None:
    received: dict[str, Any] = {}

    def everything(
        signal: Tensor,
        truth: Tensor,
        corruption: Tensor,
        true_corruption: Tensor,
        observation: Tensor,
        mask: Tensor,
        problem: Problem,
        preds: Tensor,
        target: Tensor,
        other: int = 7,
    ) -> float:
        received.update(locals())
        return 1.5

    mask = torch.ones(3, 16, 16, dtype=torch.bool)
    mask[0, 0] = False
    of_image = image_problem(0, mask=mask)
    assert score_of(of_image, everything) == {"own": 1.5}
    assert {*ARGUMENTS, "other"} <= received.keys()
    assert received["problem"] is of_image
    assert received["other"] == 7
    assert of_image.truth is not None
    assert of_image.true_corruption is not None
    expected = {
        "signal": of_image.truth + 0.1,
        "truth": of_image.truth,
        "corruption": torch.full((3, 16, 16), 0.25),
        "true_corruption": of_image.true_corruption,
        "observation": of_image.observation,
        "mask": mask,
        "preds": (of_image.truth + 0.1)[None],
        "target": of_image.truth[None],
    }
    for name, tensor in expected.items():
        assert torch.equal(received[name], tensor), name
        assert not received[name].requires_grad


def test_torchmetrics_functions_are_supported() -> None:
    metric = functools.partial(peak_signal_noise_ratio, data_range=1.0)
    assert score_of(image_problem(0), metric) == {"own": pytest.approx(20.0, abs=1e-4)}


def test_all_entries_are_observed_without_a_mask() -> None:
    assert score_of(matrix_problem(0), lambda mask: mask.sum()) == {"own": 36.0}


def test_classes_and_modules_can_be_called() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def forward(self, preds: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return self.weight * len(preds)

    assert score_of(image_problem(0), Scaled(3.0)) == {"own": pytest.approx(0.3, abs=1e-6)}
    assert score_of(image_problem(0), Network()) == {"own": 2.0}


def test_metric_cannot_change_the_result() -> None:
    def spoil(signal: Tensor, truth: Tensor, observation: Tensor) -> float:
        signal.zero_(), truth.zero_(), observation.zero_()
        return 0.0

    problems = ProblemBatch([image_problem(0)])
    X, y = truths(problems) + 0.1, problems.observation.clone()
    scorer = Scorer(problems, metrics=CustomMetrics({"spoil": spoil}))
    first = scorer.curves(X, y, torch.zeros(1))
    assert scorer.curves(X, y, torch.zeros(1)) == first
    assert torch.equal(X, truths(problems) + 0.1)
    assert torch.equal(problems.observation, y)


# ------------------------------------------------------------------------------------------------------------ unknown


def test_metrics_of_an_unknown_truth_are_omitted() -> None:
    problems = [image_problem(0), image_problem(1, truth=None)]
    metrics = {
        "torch": PeakSignalNoiseRatio(data_range=1.0),
        "function": mean_error,
        "needless": lambda signal: signal.numel(),
        "optional": lambda signal, truth=7: float(isinstance(truth, Tensor)),
    }
    known, unknown = scores_of(problems, metrics)
    assert list(known) == ["torch", "function", "needless", "optional"]
    assert unknown == {"needless": 768.0, "optional": 0.0}


def test_corruption_is_unknown_without_one() -> None:
    metric = {"own": lambda corruption: corruption.sum(), "true": lambda true_corruption: true_corruption.sum()}
    assert scores_of([matrix_problem(0)], metric) == [{"own": 9.0, "true": 60.0}]
    assert scores_of([matrix_problem(0)], metric, corruption=False) == [{"true": 60.0}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, torch.tensor(torch.nan), np.float32("inf")])
def test_nonfinite_results_are_omitted(value: object) -> None:
    assert score_of(image_problem(0), lambda signal: value) == {}


# ------------------------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, {"own": 2.0}),
        (True, {"own": 1.0}),
        (0.1, {"own": 0.1}),
        (np.float64(0.1), {"own": 0.1}),
        (np.int32(4), {"own": 4.0}),
        (torch.tensor([[0.5]]), {"own": 0.5}),
        (torch.tensor(3), {"own": 3.0}),
        ({"a": 1, "b": {"c": torch.tensor(2.0), "d": None}, "e": math.nan}, {"own_a": 1.0, "own_b_c": 2.0}),
        ({}, {}),
    ],
)
def test_results_become_numbers_by_tag(value: object, expected: dict[str, float]) -> None:
    assert score_of(image_problem(0), lambda signal: value) == expected


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (torch.zeros(3), r"torch.float32 of shape \(3,\)"),
        ("high", "str"),
        ((torch.zeros(1), "x"), "tuple"),
        (torch.tensor(1j), "complex64"),
        ({"a": torch.zeros(0)}, r"shape \(0,\)"),
    ],
)
def test_other_results_are_refused(value: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"metrics: 'own' \(<lambda>\) must return a number, None, .*got .*{got}"):
        score_of(image_problem(0), lambda signal: value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"a b": 1.0}, "a tag must consist of letters, digits and underscores, got 'own_a b'"),
        ({"x": {"y": 1.0}, "x_y": 2.0}, "the tag 'own_x_y' occurs twice"),
    ],
)
def test_keys_of_results_are_tags(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_of(image_problem(0), lambda signal: keys)


def test_a_key_may_not_become_a_built_in_tag() -> None:
    with pytest.raises(ValueError, match="the tag 'input_psnr' is reserved"):
        scores_of([image_problem(0)], {"input": lambda signal: {"psnr": 1.0}})


def test_a_tag_may_not_be_an_attribute() -> None:
    with pytest.raises(ValueError, match="'level' is an attribute of problem 'image-0'"):
        scores_of([image_problem(0, attributes={"level": 3})], {"level": mean_error})


# ------------------------------------------------------------------------------------------------------------- errors


def test_failing_metric_is_reported_with_the_problem() -> None:
    def fails(signal: Tensor) -> float:
        raise RuntimeError("no\n  way")

    expected = r"metrics: 'own' \(fails\) failed on problem 'image-0', whose signal has shape \(3, 16, 16\): RuntimeE"
    with pytest.raises(ValueError, match=rf"^{expected}rror: no way$") as raised:
        score_of(image_problem(0), fails)
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_metric_that_refuses_the_shape_is_reported() -> None:
    with pytest.raises(ValueError, match=r"'own' \(StructuralSimilarityIndexMeasure\) failed on problem 'matrix-0'"):
        score_of(matrix_problem(0), StructuralSimilarityIndexMeasure(data_range=1.0))


def test_metric_is_reset_after_an_error() -> None:
    class Fragile(Counting):
        fragile = True

        def compute(self) -> Tensor:
            if self.fragile:
                raise RuntimeError("once")
            return self.seen

    metrics = CustomMetrics({"own": Fragile()})
    problem, known = image_problem(0), {"signal": torch.zeros(3, 16, 16)}
    with pytest.raises(ValueError, match="once"):
        metrics.scores(problem, known)
    Fragile.fragile = False
    assert metrics.scores(problem, known) == {"own": 1.0}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"psnr": mean_error}, "the tag 'psnr' is reserved; use another one"),
        ({"seconds": mean_error}, "the tag 'seconds' is reserved"),
        ([Scaled(), Scaled()], "the tag 'scaled' occurs twice"),
        ([lambda signal: 0.0], "a tag must consist of letters, digits and underscores, got '<lambda>'"),
        ({"my error": mean_error}, "got 'my error'"),
        ({3: mean_error}, "got 3"),
        (mean_error, "metrics must be a dictionary by tag, or a list, got <function mean_error"),
        ("my.error", "metrics must be a dictionary by tag, or a list, got 'my.error'"),
        ({"own": 3}, "'own' must be a torchmetrics.Metric, a function .* got 3"),
        ({"own": Scaled}, "'own' must be a torchmetrics.Metric, a function .* got <class"),
        ({"own": lambda x, y: 0.0}, r"must take arguments named signal, truth, .*, target, got x, y"),
        ({"own": lambda: 0.0}, "must take arguments named .*, got none of them"),
        ({"own": lambda *args: 0.0}, "must take arguments named .*, got none of them"),
        ({"own": lambda signal, /: 0.0}, "must take arguments named .*, got signal by position"),
        ({"own": torch.sin}, r"'own' \(sin\) has no signature; wrap it in a function"),
    ],
)
def test_non_metrics_are_refused_at_once(metrics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CustomMetrics(metrics)


def test_a_torchmetric_with_other_arguments_is_refused() -> None:
    class OfThree(Counting):
        def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ValueError, match=r"update of 'own' \(OfThree\) must require one or two .*got preds, target, w"):
        CustomMetrics({"own": OfThree()})
    assert score_of(image_problem(0, truth=None), MeanMetric())  # its weights have a default


# ---------------------------------------------------------------------------------------------------------- the rest


def test_a_list_is_named_by_its_classes_and_functions() -> None:
    metrics = [MeanAbsoluteError(), functools.partial(mean_error), Scaled()]
    assert list(scores_of([image_problem(0)], metrics)[0]) == ["mean_absolute_error", "mean_error", "scaled"]


def test_direction_follows_the_metric() -> None:
    metrics = CustomMetrics(
        {
            "error": MeanAbsoluteError(),
            "peak": PeakSignalNoiseRatio(data_range=1.0),
            "peak_of": mean_error,
            "scaled": Scaled(),
        }
    )
    scores = dict.fromkeys(("psnr", "error", "peak", "peak_of", "peak_low", "scaled"), 1.0)
    assert metrics.higher_is_better(scores) == {"error": False, "peak": True, "peak_low": True, "scaled": True}
    assert metrics.higher_is_better({"psnr": 1.0}) == {}


def test_metrics_are_copied_and_pickled() -> None:
    metrics = CustomMetrics({"error": MeanAbsoluteError(), "mean": mean_error, "scaled": Scaled(2.0)})
    problem = image_problem(0)
    assert problem.truth is not None
    known = {"signal": problem.truth + 0.1, "truth": problem.truth}
    for copied in (copy.deepcopy(metrics), pickle.loads(pickle.dumps(metrics))):
        assert copied.scores(problem, known) == metrics.scores(problem, known)


def test_only_ended_problems_are_scored_at_the_end() -> None:
    seen: list[str] = []

    def own(problem: Problem) -> float:
        seen.append(problem.name)
        return 1.0

    batch = ProblemBatch([matrix_problem(k) for k in range(3)])
    scores = Scorer(batch, metrics=CustomMetrics({"own": own})).final(
        truths(batch), batch.observation, torch.zeros(3), ends=[1]
    )
    assert seen == ["matrix-1"]
    assert ["own" in of_problem for of_problem in scores] == [False, True, False]


def test_built_in_scores_are_unchanged_by_custom_ones() -> None:
    batch = ProblemBatch([image_problem(0)])
    given = truths(batch) + 0.1, batch.observation, torch.zeros(1)
    plain, more = Scorer(batch).final(*given)[0], Scorer(batch, metrics=CustomMetrics([mean_error])).final(*given)[0]
    assert more == {**plain, "mean_error": more["mean_error"]}
    assert more["psnr"] == float(psnr(given[0], truths(batch), 1.0))


def test_every_name_of_a_tensor_is_an_argument_and_every_tag_is_reserved() -> None:
    assert set(KNOWN) < set(ARGUMENTS)
    assert {*CURVES, *FINAL} < RESERVED
