"""The processor time of other processes."""

from types import SimpleNamespace
from typing import Any

import pytest

from dop_lightning.lightning.callbacks import load as module
from dop_lightning.lightning.callbacks.load import OtherLoad, describe


def test_own_time_and_idle_time_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 10 s of two cores: 8 s of this process, 3 s idle, 1 s waiting for the disk, 8 s of others."""
    fields = ("user", "system", "idle", "iowait", "guest")

    class Times(SimpleNamespace):
        def __iter__(self) -> Any:
            return (getattr(self, name) for name in fields)

    clock = {"now": 0.0, "own": 0.0, "times": Times(**dict.fromkeys(fields, 0.0))}
    monkeypatch.setattr(module.psutil, "cpu_times", lambda: clock["times"])
    monkeypatch.setattr(module.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(module.time, "process_time", lambda: clock["own"])
    load = OtherLoad()
    clock.update(now=10.0, own=8.0, times=Times(user=14.0, system=2.0, idle=3.0, iowait=1.0, guest=0.0))
    assert load.measure() == pytest.approx(0.8)


def test_load_is_never_negative() -> None:
    load = OtherLoad()
    sum(range(100_000))
    assert load.measure() >= 0


def test_small_load_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.psutil, "cpu_count", lambda: 4)
    assert describe(module.MIN_BUSY_CORES / 2) == ""
    assert describe(1.52) == "slower than expected: other processes use 1.5 of 4 cores"
