"""θ itself as the signal, with rates by coordinate."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import Coordinates, Signal
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.operator import Measurements
from tests.suites.part import ROUNDING, draw
from tests.suites.signal import SignalSuite


class TestCoordinates(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3,)), signal_shape=(5,), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return Coordinates(problems, rates=[0.5, 1.0, 2.0, 4.0, 0.1], scale=0.2)


class TestCoordinatesFromZero(SignalSuite):
    test_start_differs_between_seeds = None  # nothing is drawn

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (2, 3)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return Coordinates(problems)


def batch(*shape: int, K: int = 1) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, shape), seed=k) for k in range(K)])


def test_step_is_equation_18() -> None:
    problems = ProblemBatch([Problem(f"{k}", draw(k, (2,)), signal_shape=(3,), seed=k) for k in range(2)])
    rates = [0.5, 3.0, 1.0]
    signal = partial(Coordinates, rates=rates, scale=0.7)
    state = BatchState(Method(signal, None, Measurements, SquaredLoss("half")), problems, tau=[0.01, 0.03], alpha=1.0)
    theta, W, y = state.evaluate().signal, state.operator.A, problems.observation
    state.advance(1)
    gradient = torch.einsum("kmn,km->kn", W, torch.einsum("kmn,kn->km", W, theta) - y)
    tau = torch.tensor([[0.01], [0.03]], dtype=torch.float64)
    expected = theta - tau * torch.tensor(rates, dtype=torch.float64) * gradient
    torch.testing.assert_close(state.evaluate().signal, expected, **ROUNDING)


def test_rates_have_the_order_of_the_entries() -> None:
    signal = Coordinates(batch(2, 3), rates=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    with torch.no_grad():
        signal.descend_(torch.ones(1, 2, 3, dtype=torch.float64), 1.0)
    expected = -torch.arange(1.0, 7.0, dtype=torch.float64).view(1, 2, 3)
    torch.testing.assert_close(signal(), expected, **ROUNDING)


def test_start_does_not_depend_on_the_rates() -> None:
    problems = batch(4)
    torch.testing.assert_close(Coordinates(problems, 9.0, 0.3)(), Coordinates(problems, 1.0, 0.3)(), **ROUNDING)
    assert not Coordinates(problems)().any()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="rates must be a finite number above 0, got 0"):
        Coordinates(batch(2), rates=[1.0, 0.0])
    with pytest.raises(ValueError, match="rates must be a finite number above 0, got -1"):
        Coordinates(batch(2), rates=-1)
    with pytest.raises(ValueError, match="rates must be one number or a list of one per entry, 2, got 3"):
        Coordinates(batch(2), rates=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="scale must be a finite number of at least 0, got -1"):
        Coordinates(batch(2), scale=-1.0)
