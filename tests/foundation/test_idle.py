import os
from collections import namedtuple

import psutil
import pytest

from dop_lightning.foundation import idle
from dop_lightning.foundation.idle import core_times, idle_cores, measure_idle_cores

Spent = namedtuple("Spent", ["user", "system", "idle", "iowait", "steal", "guest"])


def test_times_are_of_the_cores_in_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = [Spent(1.0, 2.0, 10.0 * core, 0.5, 0.25, 1.0) for core in range(4)]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: cores)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    assert core_times() == [(10.5, 13.75), (30.5, 33.75)]


def test_times_are_of_all_cores_if_their_numbers_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [Spent(1.0, 0.0, 1.0, 0.0, 0.0, 0.0)] * 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    assert len(core_times()) == 2


def test_core_without_progress_counts_as_busy() -> None:
    assert idle_cores([(1.0, 2.0), (1.0, 2.0)], [(1.0, 2.0), (1.2, 2.2)]) == 1.0


def test_the_cores_of_this_machine_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "SECONDS", 0.02)
    assert 0.0 <= measure_idle_cores(0.0) <= len(core_times())


@pytest.mark.parametrize(
    ("shares", "expected", "measurements"),
    [([2.0], 2.0, 1), ([0.5, 1.9], 1.9, 2), ([0.5, 1.0, 0.25], 1.0, 3)],
)
def test_a_short_load_is_measured_again(
    shares: list[float], expected: float, measurements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter(shares)
    slept: list[float] = []
    monkeypatch.setattr(idle, "core_times", list)
    monkeypatch.setattr(idle, "idle_cores", lambda before, after: next(measured))
    monkeypatch.setattr(idle.time, "sleep", slept.append)
    assert measure_idle_cores(1.6) == expected
    assert len(slept) == measurements
