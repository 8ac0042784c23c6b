"""What a batch takes, measured."""

import math
from types import SimpleNamespace

import pytest

from dop_lightning.engine.measure import seconds_an_iteration


def test_a_few_iterations_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    done: list[int] = []
    monkeypatch.setattr("dop_lightning.engine.measure.time.perf_counter", lambda: next(clock))
    state = SimpleNamespace(advance=done.append)
    assert seconds_an_iteration(state, least=3.0) > 0  # type: ignore[arg-type]
    assert done == [1, 1, 1, 1]  # the first is not counted
    done.clear()
    seconds_an_iteration(state, least=math.inf, most=2)  # type: ignore[arg-type]
    assert len(done) == 3
