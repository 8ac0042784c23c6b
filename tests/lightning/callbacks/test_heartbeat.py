"""The signs of life of a run, and how they say that it has ended."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from dop_lightning.lightning.callbacks import ProcessHeartbeat
from dop_lightning.lightning.callbacks import heartbeat as module
from dop_lightning.runs.heartbeat import Heartbeat, read_heartbeats, write_heartbeat


class Watch(pl.Callback):
    """Keep the heartbeat in the folder after each block, then call a function."""

    def __init__(self, then: Callable[[int], object] = lambda _: None) -> None:
        self.signs: list[Heartbeat] = []
        self.then = then

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.signs += read_heartbeats(Path(trainer.default_root_dir))
        self.then(trainer.global_step)


NAMES = [f"n12-r1-gross-outliers-0.1-seed{seed}" for seed in range(3)]


def test_heartbeat_contains_the_progress_of_problems(
    fit, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIME_DIVISOR", 0)
    watch = Watch()
    fit(tmp_path, matrix_method(), matrices(batch_size=2), 300, ProcessHeartbeat(1e-9), watch, max_time="00:01:00:00")
    assert [sign.at_work for sign in watch.signs] == [dict.fromkeys(NAMES, done) for done in (100, 200)] + [{}]
    last = watch.signs[1]
    assert (last.rank, last.iteration, last.maximum, last.batches, last.end) == (0, 200, 300, [0, 1], "")
    assert last.rate is not None
    assert last.rate > 0
    assert last.deadline is not None
    assert 3500 < last.deadline - last.time <= 3600
    (end,) = read_heartbeats(tmp_path)
    assert (end.end, end.at_work, end.iteration, end.reason) == ("finished", {}, 300, "")


def test_heartbeats_are_periodic(fit, matrix_method, matrices, tmp_path: Path) -> None:
    watch = Watch()
    fit(tmp_path, matrix_method(), matrices(), 300, ProcessHeartbeat(1000), watch)
    assert {sign.iteration for sign in watch.signs} == {0}  # that of the start
    assert read_heartbeats(tmp_path)[0].end == "finished"


def test_slow_heartbeats_are_less_frequent(
    fit, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])
        time = staticmethod(lambda: now[0])

    def slow(run: Path, beat: Heartbeat) -> None:
        now[0] += 1
        write_heartbeat(run, beat)

    monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(module, "write_heartbeat", slow)

    def wait(_: int) -> None:
        now[0] += 60

    watch = Watch(wait)
    fit(tmp_path, matrix_method(), matrices(), 700, ProcessHeartbeat(), watch)
    assert [sign.iteration for sign in watch.signs] == [0, 0, 0, 0, 500, 500, 500]  # 200 seconds after the start
    assert watch.signs[-1].pause == 200  # as often as a second is half a percent of the time


def test_stop_is_recorded(fit, matrix_method, matrices, stop_at, tmp_path: Path) -> None:
    fit(tmp_path, matrix_method(), matrices(), 300, ProcessHeartbeat(), stop_at(100, signal.SIGTERM))
    (end,) = read_heartbeats(tmp_path)
    assert (end.end, end.reason, end.at_work) == ("stopped", "SIGTERM", dict.fromkeys(NAMES, 100))


@pytest.mark.parametrize(
    ("error", "end", "reason"),
    [
        (RuntimeError("a mistake\nelsewhere"), "failed", "RuntimeError: a mistake elsewhere"),
        (ValueError("x: is full"), "failed", "x: is full"),
        (KeyboardInterrupt(), "stopped", "Ctrl-C"),
    ],
)
def test_error_is_recorded(
    error: BaseException, end: str, reason: str, fit, matrix_method, matrices, tmp_path: Path
) -> None:
    def fail(_: int) -> None:
        raise error

    with pytest.raises((type(error), SystemExit)):
        fit(tmp_path, matrix_method(), matrices(), 300, ProcessHeartbeat(1e-9), Watch(fail))
    (sign,) = read_heartbeats(tmp_path)
    assert (sign.end, sign.reason, sign.at_work) == (end, reason, dict.fromkeys(NAMES, 100))


def test_process_that_has_not_started_writes_no_heartbeat(fit, matrix_method, matrices, tmp_path: Path) -> None:
    """The file may be that of the process because of which this one was refused."""

    class Refuses(pl.Callback):
        def on_fit_start(self, *args: Any) -> None:
            raise ValueError("another process is active")

    theirs = Heartbeat(0, "elsewhere", 1, 0.0, 0.0)
    write_heartbeat(tmp_path, theirs)
    with pytest.raises(ValueError, match="another process"):
        fit(tmp_path, matrix_method(), matrices(), 300, Refuses(), ProcessHeartbeat())
    assert read_heartbeats(tmp_path) == [theirs]


def test_files_of_more_processes_are_removed(fit, matrix_method, matrices, tmp_path: Path) -> None:
    for rank in range(3):
        write_heartbeat(tmp_path, Heartbeat(rank, "elsewhere", 1, 0.0, 0.0))
    fit(tmp_path, matrix_method(), matrices(), 100, ProcessHeartbeat())
    assert [sign.host == "elsewhere" for sign in read_heartbeats(tmp_path)] == [False]


def test_run_continues_if_heartbeats_cannot_be_written(
    fit, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_heartbeat", full)
    assert fit(tmp_path, matrix_method(), matrices(), 100, ProcessHeartbeat(1e-9)).iterations == [100] * 3


@pytest.mark.parametrize("every", [0, -1])
def test_the_pause_must_be_positive(every: float) -> None:
    with pytest.raises(ValueError, match="every must be"):
        ProcessHeartbeat(every)
