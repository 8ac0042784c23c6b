"""Scores against NumPy and scikit-image, problem by problem."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dop_lightning.problems.metrics import (
    corruption_density,
    numerical_rank,
    psnr,
    relative_error,
    ssim,
    support_scores,
)

NAN = math.nan


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(left: Tensor, right: object, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        left, torch.as_tensor(right, dtype=torch.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )


class TestPsnr:
    @pytest.mark.parametrize("data_range", [1.0, 255.0])
    @pytest.mark.parametrize("shape", [(1, 9), (3, 2, 5, 4)])
    def test_equals_the_formula_per_problem(self, shape: tuple[int, ...], data_range: float) -> None:
        x, truth = rand(*shape), rand(*shape, seed=1)
        expected = [
            10 * np.log10(data_range**2 / np.mean((a - b) ** 2)) for a, b in zip(x.numpy(), truth.numpy(), strict=True)
        ]
        close(psnr(x, truth, data_range), np.array(expected), 1e-6)

    def test_equals_scikit_image(self) -> None:
        metrics = pytest.importorskip("skimage.metrics")
        x, truth = rand(2, 3, 8, 8), rand(2, 3, 8, 8, seed=1)
        expected = [
            metrics.peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=2.0) for a, b in zip(x, truth, strict=True)
        ]
        close(psnr(x, truth, 2.0), expected, 1e-6)

    def test_equal_images_have_infinite_psnr_without_affecting_others(self) -> None:
        truth = torch.zeros(3, 4)
        x = torch.tensor([[0.0] * 4, [0.1] * 4, [0.0, NAN, 0.0, 0.0]])
        close(psnr(x, truth, 1.0), [math.inf, 20.0, NAN], 1e-6)

    @pytest.mark.parametrize("data_range", [0.0, -1.0, NAN])
    def test_refuses_a_range(self, data_range: float) -> None:
        with pytest.raises(ValueError, match="data_range"):
            psnr(rand(1, 4), rand(1, 4), data_range)
        with pytest.raises(ValueError, match="data_range"):
            ssim(rand(1, 1, 16, 16), rand(1, 1, 16, 16), data_range)


class TestSsim:
    @pytest.mark.parametrize("shape", [(1, 1, 11, 11), (2, 3, 11, 17), (3, 1, 20, 13), (2, 5, 16, 16)])
    @pytest.mark.parametrize("data_range", [1.0, 2.5])
    def test_equals_scikit_image(self, shape: tuple[int, ...], data_range: float) -> None:
        metrics = pytest.importorskip("skimage.metrics")
        truth = rand(*shape)
        x = truth + 0.3 * rand(*shape, seed=1)
        expected = [
            metrics.structural_similarity(
                b.numpy(),
                a.numpy(),
                channel_axis=0,
                data_range=data_range,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(x, truth, strict=True)
        ]
        close(ssim(x, truth, data_range), expected)

    def test_equal_is_one_in_float32(self) -> None:
        x = rand(2, 3, 16, 16, dtype=torch.float32)
        close(ssim(x, x, 1.0), [1.0, 1.0])

    @pytest.mark.parametrize("size", [(1, 1), (10, 30), (30, 10), (5, 5)])
    def test_is_unknown_for_images_smaller_than_the_window(self, size: tuple[int, int]) -> None:
        close(ssim(rand(2, 3, *size), rand(2, 3, *size), 1.0), [NAN, NAN])

    def test_failed_problem_does_not_affect_others(self) -> None:
        truth = rand(2, 1, 12, 12)
        x = truth.clone()
        x[0, 0, 3, 3] = NAN
        close(ssim(x, truth, 1.0), [NAN, 1.0])

    @pytest.mark.parametrize("strip", [1, 600])
    def test_strips_of_a_large_image_add_up_to_the_whole(self, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
        x, truth = rand(2, 3, 67, 40), rand(2, 3, 67, 40, seed=1)
        expected = ssim(x, truth, 1.0)
        monkeypatch.setattr("dop_lightning.problems.metrics.functional.SSIM_STRIP", strip)
        close(ssim(x, truth, 1.0), expected)

    def test_refuses_non_images(self) -> None:
        with pytest.raises(ValueError, match="estimate must have the shape"):
            ssim(rand(2, 16, 16), rand(2, 16, 16), 1.0)


class TestRelativeError:
    @pytest.mark.parametrize("shape", [(1, 3), (4, 5, 6), (2, 3, 4, 4)])
    def test_is_the_quotient_of_norms(self, shape: tuple[int, ...]) -> None:
        x, truth = rand(*shape).numpy(), rand(*shape, seed=1).numpy()
        expected = [np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()) for a, b in zip(x, truth, strict=True)]
        close(relative_error(torch.tensor(x), torch.tensor(truth)), expected)

    def test_unknown_is_nan_never_inf(self) -> None:
        x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [NAN, 0.0], [2.0, 0.0]])
        truth = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        close(relative_error(x, truth), [NAN, NAN, NAN, 1.0])

    def test_needs_no_gradient(self) -> None:
        assert not relative_error(rand(2, 3).requires_grad_(), rand(2, 3, seed=1)).requires_grad


class TestCorruptionDensity:
    s = torch.tensor([[0.0, 0.1, -0.3, 2.0], [0.2, -0.2, 0.0, 0.0]], dtype=torch.float64)

    def test_counts_above_the_threshold(self) -> None:
        close(corruption_density(self.s, 0.1), [0.5, 0.5])  # strictly above
        close(corruption_density(self.s, 0), [0.75, 0.5])
        close(corruption_density(self.s.view(2, 2, 2).float(), 0.25), [0.5, 0.0])

    def test_one_threshold_per_problem(self) -> None:
        close(corruption_density(self.s.view(2, 2, 2), torch.tensor([1.0, 0.1])), [0.25, 0.5])

    def test_is_a_fraction_of_observed_entries(self) -> None:
        mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
        close(corruption_density(self.s, 0.1, mask), [1 / 3, 1.0])
        close(corruption_density(self.s, 0.1, torch.zeros_like(mask)), [NAN, NAN])

    def test_nan_is_not_counted_as_clean(self) -> None:
        s = torch.tensor([[NAN, 1.0], [0.0, 1.0], [1.0, NAN]])
        close(corruption_density(s, 0.1), [NAN, 0.5, NAN])
        close(corruption_density(s, 0.1, torch.tensor([[False, True]]).expand(3, 2)), [1.0, 1.0, NAN])


class TestSupportScores:
    def test_precision_and_recall(self) -> None:
        found = torch.tensor([[5.0, -5.0, 0.0, 5.0, 0.01], [0.0, 0.0, 1.0, 0.0, 0.0]])
        true = torch.tensor([[1.0, 0.0, 9.0, -4.0, 0.02], [0.0, 0.0, 2.0, 0.0, 0.0]])
        precision, recall = support_scores(found, true, 0.1)
        close(precision, [2 / 3, 1.0])
        close(recall, [2 / 3, 1.0])
        precision, recall = support_scores(found, true, 0)
        close(precision, [3 / 4, 1.0])
        close(recall, [3 / 4, 1.0])

    def test_precision_and_recall_are_not_the_same(self) -> None:
        precision, recall = support_scores(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), 0.5)
        close(precision, [0.5])
        close(recall, [1.0])

    def test_an_empty_support_is_unknown(self) -> None:
        nothing, something = torch.zeros(1, 3), torch.ones(1, 3)
        precision, recall = support_scores(nothing, something, 0.1)
        close(precision, [NAN])
        close(recall, [0.0])
        precision, recall = support_scores(something, nothing, 0.1)
        close(precision, [0.0])
        close(recall, [NAN])

    def test_unobserved_entries_do_not_count_for_supports(self) -> None:
        found = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
        true = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
        precision, recall = support_scores(found, true, 0.1, torch.tensor([[True, False, True, False]]))
        close(precision, [1.0])
        close(recall, [0.5])

    def test_failed_problem_does_not_affect_others(self) -> None:
        found = torch.tensor([[NAN, 1.0, 1.0], [1.0, 1.0, 0.0]])
        precision, recall = support_scores(found, torch.ones(2, 3), 0.1)
        close(precision, [NAN, 1.0])
        close(recall, [NAN, 2 / 3])


class TestNumericalRank:
    @pytest.mark.parametrize("shape", [(12, 12), (12, 7), (5, 12)])
    def test_of_products(self, shape: tuple[int, int]) -> None:
        ranks = range(6)
        products = [rand(shape[0], r, seed=r) @ rand(r, shape[1], seed=10 + r) for r in ranks]
        close(numerical_rank(torch.stack(products), 1e-9), list(ranks))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize(("rank", "noise"), [(5, 0.0), (30, 0.01), (20, 0.3), (600, 0.0)])
    def test_of_large_matrices(self, rank: int, noise: float, dtype: torch.dtype) -> None:
        X = rand(600, rank, seed=1) @ rand(rank, 550, seed=2) + noise * rank**0.5 * rand(600, 550, seed=3)
        values = torch.linalg.svdvals(X)
        expected = float((values > 0.05 * values[0]).sum())
        close(numerical_rank(torch.stack([X, X * 1e-18, 0 * X]).to(dtype), 0.05), [expected, expected, 0.0])
        X[3, 3] = torch.nan
        assert bool(numerical_rank(X[None], 0.05).isnan().all())

    def test_the_tolerance_is_relative(self) -> None:
        X = torch.diag(torch.tensor([100.0, 10.0, 2.0, 0.5])).expand(1, 4, 4)
        for scale in (1e-6, 1.0, 1e6):
            close(numerical_rank(scale * X), [3.0])
            close(numerical_rank(scale * X, 0.05), [2.0])
            close(numerical_rank(scale * X, 0), [4.0])

    def test_failed_problem_does_not_affect_others(self) -> None:
        X = torch.stack([torch.eye(3)] * 4)
        X[1, 0, 0], X[2, 1, 2], X[3] = NAN, math.inf, 0.0
        close(numerical_rank(X), [3.0, NAN, NAN, 0.0])

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match="X must have the shape"):
            numerical_rank(torch.eye(3))
        with pytest.raises(ValueError, match="tolerance"):
            numerical_rank(torch.eye(3)[None], 2.0)


@pytest.mark.parametrize("score", [lambda x, y: psnr(x, y, 1.0), lambda x, y: ssim(x, y, 1.0), relative_error])
def test_shapes_are_never_broadcast(score) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="estimate must have the shape of truth"):
        score(rand(2, 3, 12, 12), rand(1, 3, 12, 12))
    with pytest.raises(ValueError, match=r"estimate must have the shape \(K, ...\) with at least one entry"):
        score(rand(2), rand(2))


def test_refuses_supports() -> None:
    s = rand(2, 4)
    with pytest.raises(ValueError, match="corruption must have the shape of true_corruption"):
        support_scores(s, s[:1], 0.1)
    wrong_thresholds: list[float | Tensor] = [-0.1, NAN, torch.tensor([0.1]), torch.tensor([0.1, -0.1])]
    for threshold in wrong_thresholds:
        with pytest.raises(ValueError, match="threshold"):
            corruption_density(s, threshold)
        with pytest.raises(ValueError, match="threshold"):
            support_scores(s, s, threshold)
    for mask in (torch.ones(2, 4), torch.ones(1, 4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask must be boolean"):
            corruption_density(s, 0.1, mask)
