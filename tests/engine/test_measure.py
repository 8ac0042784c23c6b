"""Measured memory and time of a batch."""

import math

import pytest
import torch

from dop_lightning.engine.measure import seconds_per_iteration
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.engine.test_run import Counter, Counting


def counting(most: int = 9) -> Counting:
    return Counting(ProblemBatch([Problem("one", torch.zeros(1, 2, 2))]), Counter(most=most))


def test_a_few_iterations_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("dop_lightning.engine.measure.time.perf_counter", lambda: next(clock))
    state = counting()
    assert seconds_per_iteration(state, least=3.0) > 0
    assert state.method.turns == [("one", 1)] * 4  # the first is not counted
    state = counting()
    seconds_per_iteration(state, least=math.inf, most=2)
    assert state.iteration == 3


def test_smaller_problems_take_proportional_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 8))
    monkeypatch.setattr("dop_lightning.engine.measure.time.perf_counter", lambda: next(clock))
    alone, beside = counting(), [counting() for _ in range(3)]
    assert 4 * seconds_per_iteration(counting(), beside=beside, most=1) == seconds_per_iteration(alone, most=1)
    assert [other.iteration for other in beside] == [2, 2, 2]


def test_out_of_memory_is_reported() -> None:
    with pytest.raises(OutOfMemoryError):
        seconds_per_iteration(counting(most=0))
