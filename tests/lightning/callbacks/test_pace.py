"""Time left, by blocks of known durations."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dop_lightning.lightning.callbacks import pace as module
from dop_lightning.lightning.callbacks.pace import Pace


def batch(entries: int = 100, iteration: int = 0) -> Any:
    observation = torch.zeros(1, entries)
    problems = SimpleNamespace(observation=observation)
    return SimpleNamespace(problems=problems, entries=entries, iteration=iteration)


def advance(pace: Pace, state: Any, iterations: int, now: float) -> None:
    state.iteration += iterations
    pace.note(state, iterations, now)


def test_expectation_is_used_before_any_measurement() -> None:
    states = [batch(), batch(50)]
    assert Pace(20, states, None, 0.0).seconds_left is None
    assert Pace(20, states, 0.01, 0.0).seconds_left == pytest.approx(20 * 150 * 0.01)


def test_a_steady_speed_is_found() -> None:
    state = batch()
    pace = Pace(100, [state], None, 5.0)
    for k in range(1, 6):
        advance(pace, state, 10, 5.0 + 2 * k)
    assert pace.done == 50
    assert pace.seconds_left == pytest.approx(10)


def test_setup_time_is_expected_of_waiting_batches() -> None:
    """1 s before the first of 10 iterations, which take 0.1 s each, as expected: 3 s for each of four batches."""
    states = [batch() for _ in range(4)]
    pace = Pace(20, states, 0.001, 0.0)
    for k in range(3):
        advance(pace, states[k], 10, 2.0 * (k + 1))
        assert pace.seconds_left == pytest.approx(4 * 3 - 2 * (k + 1))
    advance(pace, states[3], 10, 8.0)
    assert pace.seconds_left == pytest.approx(4)
    advance(pace, states[0], 10, 9.0)
    assert pace.seconds_left == pytest.approx(3)


def test_one_iteration_of_each_batch() -> None:
    states = [batch(), batch(), batch(200)]
    pace = Pace(1, states, 0.0, 0.0)
    advance(pace, states[0], 1, 3.0)
    assert pace.done == 0.25
    assert pace.seconds_left == pytest.approx(9)


def test_the_latest_speed_counts() -> None:
    state = batch()
    pace = Pace(1000, [state], None, 0.0)
    now = 0.0
    for k in range(60):
        now += 1.0 if k < 20 else 4.0
        advance(pace, state, 10, now)
    assert pace.seconds_left == pytest.approx(400 * 0.4)


def test_problems_that_end_early_take_no_time() -> None:
    states = [batch(), batch()]
    pace = Pace(20, states, 0.01, 0.0)
    advance(pace, states[0], 10, 10.0)
    pace.renew(states[1:])
    assert pace.seconds_left == pytest.approx(20)
    assert pace.done == 10


@pytest.mark.parametrize(("seconds", "slow"), [(1.0, False), (1.4, False), (2.0, True)])
def test_slow_is_relative_to_the_expectation(seconds: float, slow: bool) -> None:
    state = batch()
    pace = Pace(1000, [state], 0.001, 0.0)
    for k in range(1, 20):
        advance(pace, state, 10, k * seconds)
    assert pace.is_slow is slow


def test_slowness_needs_several_measurements() -> None:
    state = batch()
    pace = Pace(1000, [state], 1e-9, 0.0)
    advance(pace, state, 10, 0.5)
    advance(pace, state, 10, module.MIN_MEASURED_SECONDS)
    assert not pace.is_slow
