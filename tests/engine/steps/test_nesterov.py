"""Nesterov's extrapolation of the dual variable."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, Nesterov
from dop_lightning.model.losses import AbsoluteLoss
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.steps import StepRuleSuite, error_of, make_batch, make_state


class TestNesterov(StepRuleSuite):
    enough = 2500
    close = 3e-3

    def rule(self) -> Nesterov:
        return Nesterov()


def test_it_is_faster_than_gradient_descent() -> None:
    problems = make_batch(0, 1, 2, n=40, rank=2, ratio=0.1)
    plain, fast = make_state(problems, GradientDescent()), make_state(problems, Nesterov())
    plain.advance(400)
    fast.advance(400)
    assert bool((error_of(fast) < 0.5 * error_of(plain)).all())


def test_momentum_is_reset_when_the_loss_rises() -> None:
    state = make_state(make_batch(0, 1), Nesterov())
    state.advance(40)
    state.memory["last_loss"][0] = 0.0  # whatever it is now, it is more
    t = state.memory["t"].clone()
    state.advance(1)
    assert float(state.memory["t"][0]) == pytest.approx((1 + 5**0.5) / 2)
    assert float(state.memory["t"][1]) > float(t[1])


def test_extrapolated_step_follows_the_formula() -> None:
    problems = make_batch(0, n=8)
    state = make_state(problems, Nesterov(), tau=1e-3)
    alpha, y = state.alpha[0], problems.observation[0]
    U, g = state.signal.get_parameter("U").detach()[0].clone(), state.corruption.get_parameter("g").detach()[0].clone()
    h, v, t = g.clone(), torch.zeros_like(y), 1.0
    state.advance(3)
    for _ in range(3):  # too short for the bound on Δ to matter
        r = U @ U.T + g * g - h * h - y
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        after = (1 + (1 + 4 * following**2) ** 0.5) / 2
        v = (t - 1) / following * v - 1e-3 * r
        change = (following - 1) / after * v - 1e-3 * r
        U, g, h = U + (change + change.T) @ U / 2, g + alpha * change * g, h - alpha * change * h
        t = following
    torch.testing.assert_close(state.signal.get_parameter("U").detach()[0], U, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(state.corruption.get_parameter("g").detach()[0], g, rtol=1e-12, atol=1e-15)


def test_unsupported_methods_are_refused() -> None:
    image = ProblemBatch([Problem("image", torch.rand(3, 16, 16))])
    network = partial(SkipUNet, width=4, scales=2, input_channels=4, precision="fp32")
    with pytest.raises(ValueError, match="Nesterov requires a signal with a closed-form gradient"):
        BatchState(Method(network, steps=Nesterov()), image, 1.0, 4.0)
    with pytest.raises(ValueError, match="Nesterov requires a squared loss"):
        BatchState(Method(SymmetricFactor, None, loss=AbsoluteLoss(), steps=Nesterov()), make_batch(0), 1e-3, 1.0)
