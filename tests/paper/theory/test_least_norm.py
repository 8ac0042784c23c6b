"""Appendix A: where gradient descent with rates by coordinate ends."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import Coordinates
from dop_lightning.paper.theory import largest_rate, least_norm_solution
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.operator import Measurements
from tests.suites.part import draw

RATES = torch.tensor([0.2, 5.0, 1.0, 0.5, 2.0, 3.0, 0.1], dtype=torch.float64)


def problems() -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, (3,)), signal_shape=(7,), seed=k) for k in range(2)])


def descend(share: float, iterations: int, rates: torch.Tensor | None, scale: float) -> tuple[BatchState, torch.Tensor]:
    """Gradient descent at a share of the largest rate; the state, and θ at its start."""
    batch = problems()
    signal = partial(Coordinates, rates=1.0 if rates is None else rates.tolist(), scale=scale)
    tau = (share * largest_rate(Measurements(batch).A, rates)).tolist()
    state = BatchState(Method(signal, None, Measurements, SquaredLoss("half")), batch, tau, alpha=1.0)
    start = state.evaluate().signal
    state.advance(iterations)
    return state, start


@pytest.mark.parametrize("rates", [None, RATES])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradient_descent_ends_in_the_weighted_least_norm_solution(rates, scale: float) -> None:
    """Eqs. 17 to 19, from 0 and from elsewhere, for Λ = I and for another Λ."""
    state, start = descend(0.5, 2000, rates, scale)
    expected = least_norm_solution(state.operator.A, state.problems.observation, rates, start)
    torch.testing.assert_close(state.evaluate().signal, expected, rtol=1e-6, atol=1e-6)


def test_separate_rates_change_the_solution() -> None:
    batch = problems()
    W, b = Measurements(batch).A, batch.observation
    plain, weighted = least_norm_solution(W, b), least_norm_solution(W, b, RATES)
    torch.testing.assert_close(plain, (torch.linalg.pinv(W) @ b.unsqueeze(-1)).squeeze(-1))
    assert float((plain - weighted).norm()) > 0.1
    assert (weighted.abs()[:, RATES < 0.3].sum(dim=1) < plain.abs()[:, RATES < 0.3].sum(dim=1)).all()


def test_solution_is_the_nearest_to_the_start_in_the_norm_of_the_rates() -> None:
    batch = problems()
    W, b, start = Measurements(batch).A, batch.observation, draw(9, (2, 7))
    theta = least_norm_solution(W, b, RATES, start)
    torch.testing.assert_close((W @ theta.unsqueeze(-1)).squeeze(-1), b)
    null = torch.linalg.svd(W).Vh[:, 3:]  # 2 4 7
    off = null @ ((theta - start) / RATES).unsqueeze(-1)
    assert float(off.abs().max()) < 1e-10, "the way is orthogonal to the null space in that norm"


def test_larger_rates_diverge() -> None:
    """On both sides of the bound."""
    for share, good in ((0.99, True), (1.01, False)):
        state, _ = descend(share, 3000, RATES, 0.0)
        assert bool((state.evaluate().loss < 1e-9).all()) is good


def test_rates_are_checked() -> None:
    W, b = draw(0, (2, 3)), draw(1, (2,))
    with pytest.raises(ValueError, match="rates must have one entry per column of W, 3"):
        least_norm_solution(W, b, torch.ones(2))
    with pytest.raises(ValueError, match="rates must be finite and positive"):
        largest_rate(W, torch.tensor([1.0, 0.0, 1.0]))
