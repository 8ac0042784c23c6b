"""Gradient descent: constant, decaying and automatic steps, and the time of the flow."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.automatic import spectral_norms
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent
from dop_lightning.model.losses import AbsoluteLoss
from dop_lightning.model.signals import Coordinates, SkipUNet, SymmetricFactor
from dop_lightning.problems.metrics import relative_error
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import draw
from tests.suites.steps import StepRuleSuite, make_batch, make_problem, make_state


class TestGradientDescent(StepRuleSuite):
    enough = 4000

    def rule(self) -> GradientDescent:
        return GradientDescent()


class TestHorizon(StepRuleSuite):
    enough = 4000
    close = 4e-3

    def rule(self) -> GradientDescent:
        return GradientDescent(horizon=12.0)


def test_automatic_tau_follows_the_documentation() -> None:
    problems = make_batch(0, 1)
    state = make_state(problems, GradientDescent())
    for k, problem in enumerate(problems):
        norm = float(torch.linalg.matrix_norm(problem.observation, 2))
        curvature = norm + state.alpha[k] * float(problem.observation.abs().max())
        assert state.tau[k] == pytest.approx(0.9 / curvature, rel=0.06)


def test_spectral_norms() -> None:
    matrices = draw(3, (2, 9, 14))
    norms, right = spectral_norms(matrices, make_batch(0, 1))
    expected = torch.linalg.matrix_norm(matrices, 2)
    torch.testing.assert_close(norms, expected, rtol=0.05, atol=0)
    assert bool((norms <= expected * (1 + 1e-12)).all())
    torch.testing.assert_close(torch.linalg.vector_norm(right, dim=(1, 2)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("horizon", [0.6, 3.0])
def test_steps_follow_one_path_in_the_time_of_the_flow(horizon: float) -> None:
    """To the first order in τ, in the middle and at the end; the automatic τ among them."""
    problems = make_batch(0, 1)
    tiny = make_state(problems, GradientDescent(), tau=2e-4)
    tiny.advance(round(horizon / 2e-4))
    distances = []
    for tau in ("auto", 1.6e-3, 4e-4):
        state = make_state(problems, GradientDescent(horizon=horizon), tau=tau)
        while len(state.finished()) < 2:
            state.advance(50)
        distances.append(float(relative_error(state.signal(0).detach(), tiny.signal(0).detach()).max()))
    assert distances[0] < 0.25
    assert distances[2] < 0.4 * distances[1] < 0.4 * 0.1


def test_problems_of_a_batch_reach_the_horizon_by_separate_steps() -> None:
    loud = make_problem(1)
    loud = Problem("loud", 5 * loud.observation, seed=1)
    state = make_state(ProblemBatch([make_problem(0), loud]), GradientDescent(horizon=1.0))
    assert state.tau[0] > 4 * state.tau[1]
    quick = int(1.0 / state.tau[0]) + 1
    state.advance(quick)
    assert state.finished() == {0: "done"}
    there = state.signal(0)[0].clone()
    state.advance(4 * quick)
    assert torch.equal(state.signal(0)[0], there)
    assert float(state.memory["time"][0]) == pytest.approx(1.0, abs=1e-12)


def test_too_large_tau_is_halved_when_the_loss_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dop_lightning.engine.automatic.SAFETY", 1.6)
    problems = make_batch(0)
    state = make_state(problems, GradientDescent())
    first = state.tau[0]
    state.advance(3000)
    assert float(state.memory["tau"][0]) < 0.6 * first
    monkeypatch.undo()
    calm = make_state(problems, GradientDescent())
    calm.advance(3000)
    assert float(calm.memory["tau"][0]) == calm.tau[0]
    assert relative_error(state.signal(0).detach(), calm.signal(0).detach()).max() < 2e-2


def test_decaying_steps_follow_the_formula() -> None:
    problems = make_batch(0, n=6)
    state = make_state(problems, GradientDescent(decay=0.9), tau=0.01)
    U, g = state.signal.get_parameter("U").detach()[0].clone(), state.corruption.get_parameter("g").detach()[0].clone()
    h, y, alpha = g.clone(), problems.observation[0], state.alpha[0]
    state.advance(3)
    state.advance(2)
    for k in range(5):
        tau = 0.01 * 0.9**k
        r = U @ U.T + g * g - h * h - y
        U, g, h = U - tau / 2 * (r + r.T) @ U, g - alpha * tau * r * g, h + alpha * tau * r * h
    torch.testing.assert_close(state.signal.get_parameter("U").detach()[0], U, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(state.corruption.get_parameter("h").detach()[0], h, rtol=1e-12, atol=1e-15)


def test_decaying_steps_make_subgradients_converge() -> None:
    """MF-ℓ1 (Eq. 2) with the rank known: constant steps circle about the truth, decaying ones come to it."""
    problems = make_batch(0, 1, ratio=0.1)
    ends = {}
    for decay in (1.0, 0.995):
        method = Method(
            partial(SymmetricFactor, rank=1, scale=0.1), None, loss=AbsoluteLoss("sum"), steps=GradientDescent(decay)
        )
        state = BatchState(method, problems, 2e-3, 1.0)
        state.advance(4000)
        truth = torch.stack([problem.truth for problem in problems if problem.truth is not None])
        ends[decay] = float(relative_error(state.signal(0).detach(), truth).max())
    assert ends[0.995] < 1e-6 < ends[1.0]


@pytest.mark.parametrize("unit", [1e-5, 1e4])
def test_automatic_tau_follows_the_unit_of_the_data(unit: float) -> None:
    problem = make_problem(0)
    other = Problem("other", unit * problem.observation, seed=0)
    taus = [make_state(ProblemBatch([p]), GradientDescent()).tau[0] for p in (problem, other)]
    assert taus[1] * unit == pytest.approx(taus[0], rel=1e-6)


@pytest.mark.parametrize("settings", [{"decay": 0.0}, {"decay": 1.1}, {"decay": float("nan")}, {"horizon": 0.0}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        GradientDescent(**settings)


def test_automatic_tau_refuses_unsupported_methods() -> None:
    image = ProblemBatch([Problem("image", torch.rand(3, 16, 16))])
    method = Method(partial(SkipUNet, width=4, scales=2, input_channels=4, precision="fp32"))
    with pytest.raises(ValueError, match="tau 'auto' requires a signal with a closed-form gradient"):
        BatchState(method, image, "auto", 4.0)
    with pytest.raises(ValueError, match="horizon requires a signal with a closed-form gradient"):
        BatchState(Method(method.signal, steps=GradientDescent(horizon=1.0)), image, 1.0, 4.0)
    with pytest.raises(ValueError, match="decay requires a signal with a closed-form gradient"):
        BatchState(Method(method.signal, steps=GradientDescent(decay=0.5)), image, 1.0, 4.0)
    adam = partial(torch.optim.Adam, lr=0.1)
    with pytest.raises(ValueError, match="requires gradient descent on θ, got a theta_optimizer"):
        BatchState(Method(SymmetricFactor, theta_optimizer=adam), make_batch(0), "auto")
    with pytest.raises(ValueError, match="growing must be false with a theta_optimizer"):
        BatchState(Method(partial(SymmetricFactor, growing=True), theta_optimizer=adam), make_batch(0), 1e-3)
    with pytest.raises(ValueError, match="tau must be one of auto, got 'quick'"):
        BatchState(Method(SymmetricFactor), make_batch(0), "quick")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got the loss AbsoluteLoss"):
        BatchState(Method(SymmetricFactor, None, loss=AbsoluteLoss()), make_batch(0), "auto", 1.0)
    vector = ProblemBatch([Problem("vector", torch.rand(5))])
    with pytest.raises(ValueError, match="a signal of shape"):
        BatchState(Method(Coordinates), vector, "auto", 1.0)
