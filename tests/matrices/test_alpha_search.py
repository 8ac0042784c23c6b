"""α of a matrix by the prediction of entries that are held out."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import SemiImplicit
from dop_lightning.matrices.alpha_search import LARGEST, choose_alpha
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor
from dop_lightning.problems.metrics.functional import relative_error
from dop_lightning.problems.problem import Problem, ProblemBatch

METHOD = Method(
    partial(Factor, scale=1e-5, growing=True),
    partial(HadamardCorruption, scale=1e-5),
    steps=SemiImplicit(tolerance=1e-4),
)


def matrix(share: float, decay: float, n: int = 120, m: int = 40) -> Problem:
    """A matrix with geometrically falling singular values and outliers."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(side, m, dtype=torch.float64, generator=generator)).Q for side in (n, m))
    truth = (left * (100 * decay ** torch.arange(m, dtype=torch.float64))) @ right.mT
    hit = torch.rand(n, m, generator=generator) < share
    return Problem("p", truth + hit * 20 * torch.randn(n, m, dtype=torch.float64, generator=generator), truth=truth)


def error_at(problem: Problem, scale: float) -> float:
    state = BatchState(METHOD, ProblemBatch([problem]), "auto", scale * 120**0.5)
    state.advance(200)
    assert problem.truth is not None
    return float(relative_error(state.evaluate().signal, problem.truth[None]))


def test_few_outliers_and_approximate_rank_need_a_smaller_alpha() -> None:
    problem = matrix(0.02, 0.7)
    choice = choose_alpha(problem, METHOD)
    assert choice.alpha < 0.9 * 120**0.5
    assert error_at(problem, choice.alpha / 120**0.5) < 0.8 * error_at(problem, 1.0)


def test_many_outliers_need_a_larger_alpha() -> None:
    few, many = (choose_alpha(matrix(share, 0.3), METHOD).alpha for share in (0.02, 0.3))
    assert few < many
    assert error_at(matrix(0.3, 0.3), many / 120**0.5) < error_at(matrix(0.3, 0.3), few / 120**0.5)


def test_values_are_tested_in_descending_order_until_the_error_rises() -> None:
    choice = choose_alpha(matrix(0.3, 0.3), METHOD, scales=(2.0, 1.0, 0.5, 0.25, 0.1))
    assert len(choice.scales) == len(choice.errors) < 5
    assert choice.errors[-1] > min(choice.errors)
    assert choice.alpha == pytest.approx(choice.scales[choice.errors.index(min(choice.errors))] * 120**0.5)


def test_truth_is_not_used_and_the_choice_is_reproducible() -> None:
    problem = matrix(0.1, 0.5)
    blind = Problem("p", problem.observation)
    assert choose_alpha(problem, METHOD) == choose_alpha(blind, METHOD)


def test_part_of_a_large_matrix_suffices() -> None:
    generator = torch.Generator().manual_seed(0)
    low_rank = torch.randn(LARGEST * 30, 1, generator=generator) @ torch.randn(1, 60, generator=generator)
    mask = torch.rand(low_rank.shape, generator=generator) < 0.9
    choice = choose_alpha(Problem("p", low_rank, mask=mask), METHOD, scales=(1.0,), max_iterations=25)
    assert choice.alpha == pytest.approx((LARGEST * 30) ** 0.5)
    assert choice.errors[0] > 0


def test_too_few_entries_give_the_default() -> None:
    choice = choose_alpha(Problem("p", torch.ones(2, 2)), METHOD)
    assert (choice.alpha, choice.scales) == (2**0.5, ())


def test_unsupported_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="p: alpha can only be chosen for matrices"):
        choose_alpha(Problem("p", torch.ones(2, 2, 2)), METHOD)
    with pytest.raises(ValueError, match="scales must be"):
        choose_alpha(Problem("p", torch.ones(20, 20)), METHOD, scales=(0.0,))
    with pytest.raises(ValueError, match="held_out must be"):
        choose_alpha(Problem("p", torch.ones(20, 20)), METHOD, held_out=1.0)
