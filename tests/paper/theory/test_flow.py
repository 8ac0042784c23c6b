"""The gradient flow, integrated, against its closed form and against gradient descent."""

import sys

import pytest
import torch
from torch import Tensor

from dop_lightning.model.operators import Identity
from dop_lightning.paper.theory import Flow, closed_form, dual_variable, gradient_flow
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.paper.theory.builders import Case, case
from tests.suites.operator import Measurements
from tests.suites.part import draw

GAMMA = 1e-2


def start(y: Tensor, n: int, gamma: float = GAMMA) -> tuple[Tensor, Tensor, Tensor]:
    """U, g and h of Eq. 11."""
    ones = torch.full_like(y, gamma)
    return gamma * torch.eye(n, dtype=y.dtype).expand(len(y), n, n), ones, ones


def flow_of(c: Case, alpha: float, times: list[float], gamma: float = GAMMA) -> Flow:
    y = c.problems.observation
    return gradient_flow(
        c.operator(c.problems), y, *start(y, c.B.shape[1], gamma), alpha, torch.tensor(times, dtype=torch.float64)
    )


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_flow_is_equations_29_and_30(alpha: float) -> None:
    c = case(n=6, m=9, rank=2, outliers=2)
    flow = flow_of(c, alpha, [0.0, 0.3, 1.0, 4.0])
    U, g, h = start(c.problems.observation, 6)
    operator = c.operator(c.problems)
    for t in range(4):
        X, g_t, h_t = closed_form(operator, flow.xi[t], U @ U.mT, g, h, alpha)
        torch.testing.assert_close(flow.signal[t], X, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(flow.g[t], g_t, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(flow.h[t], h_t, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(dual_variable(flow.g[t], flow.h[t], alpha), flow.xi[t], rtol=1e-6, atol=1e-7)
    assert float(flow.signal[-1].norm()) > 0.5, "it has gone somewhere"


def test_equation_29_needs_commuting_measurements_and_equation_30_does_not() -> None:
    problems = ProblemBatch([Problem("a", draw(0, (8,)), signal_shape=(4, 4), seed=1)])
    operator, y = Measurements(problems), problems.observation
    U, g, h = start(y, 4)
    flow = gradient_flow(operator, y, U, g, h, 1.0, torch.tensor([3.0]))
    assert flow.signal.shape == (1, 1, 4, 4)
    torch.testing.assert_close(flow.g[0], g * flow.xi[0].exp(), rtol=1e-6, atol=1e-8)
    X, _, _ = closed_form(operator, flow.xi[0], U @ U.mT, g, h, 1.0)
    assert float((X - flow.signal[0]).norm()) > 0.01 * float(X.norm())


def test_gradient_descent_follows_the_flow() -> None:
    """To first order in τ, at t = kτ."""
    c, alpha, t = case(n=5, m=8, rank=2, outliers=2), 1.5, 1.0
    flow = flow_of(c, alpha, [t])
    errors = []
    for steps in (400, 800, 1600):
        state = c.state(GAMMA, alpha, t / steps)
        state.advance(steps)
        found = state.evaluate()
        errors.append(
            float((found.signal - flow.signal[0]).norm() + (found.corruption - flow.corruption[0]).norm())
            / float(flow.signal[0].norm() + flow.corruption[0].norm())
        )
    assert errors[2] < 0.01
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_problems_of_a_batch_flow_independently() -> None:
    problems = ProblemBatch([Problem(f"{k}", draw(k, (3, 3)) * 3**k, seed=k) for k in range(3)])
    times, alphas = torch.tensor([0.0, 0.2, 0.5]), torch.tensor([0.5, 1.0, 3.0])
    y = problems.observation
    together = gradient_flow(Identity(problems), y, *start(y, 3), alphas, times)
    assert together.U.shape == (3, 3, 3, 3)
    assert together.xi.shape == (3, 3, 3, 3)
    for k in range(3):
        alone = gradient_flow(Identity(problems), y[k : k + 1], *start(y[k : k + 1], 3), float(alphas[k]), times)
        for name in ("U", "g", "h", "xi", "signal", "corruption"):
            one, crowd = getattr(alone, name)[:, 0], getattr(together, name)[:, k]
            torch.testing.assert_close(one, crowd, rtol=1e-6, atol=1e-7)


def test_flow_starts_at_the_initial_point_and_reports_the_given_times() -> None:
    c = case(n=3, m=4, rank=1, outliers=1)
    flow = flow_of(c, 1.0, [0.0, 0.1, 0.4])
    U, g, h = start(c.problems.observation, 3)
    for found, expected in ((flow.U, U), (flow.g, g), (flow.h, h), (flow.xi, 0 * g)):
        assert torch.equal(found[0], expected)
    later = flow_of(c, 1.0, [0.1, 0.4])
    assert torch.equal(later.times, flow.times[1:])
    torch.testing.assert_close(later.signal, flow.signal[1:], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [1.0, 0.5], [-0.1, 1.0]])
def test_times_must_increase(times: list[float]) -> None:
    with pytest.raises(ValueError, match="times must increase and start at 0 or later"):
        flow_of(case(n=3, m=4, rank=1, outliers=1), 1.0, times)


def test_alpha_is_checked() -> None:
    with pytest.raises(ValueError, match="alpha must be a finite number above 0, got 0"):
        flow_of(case(n=3, m=4, rank=1, outliers=1), 0.0, [1.0])


def test_missing_torchdiffeq_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r'torchdiffeq: pip install "dop_lightning\[theory\]"'):
        flow_of(case(n=3, m=4, rank=1, outliers=1), 1.0, [1.0])
