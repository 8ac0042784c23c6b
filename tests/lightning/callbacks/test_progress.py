"""Progress in gradient iterations, in a log and on a terminal."""

import io
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image

from dop_lightning.lightning.callbacks import IterationProgress, standard_callbacks


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def iterations(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"(\d+)/\d+ iterations", text)]


def test_a_log_gets_lines(fit, matrix_method, matrices, tmp_path: Path, capsys) -> None:
    fit(tmp_path, matrix_method(block=10), matrices(), 450)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"3 problems, up to 450 iterations on the CPU (1 thread), results in {tmp_path}"
    assert len(lines) <= 20
    shown = iterations("\n".join(lines))
    assert shown == sorted(set(shown))
    assert shown[-1] == 450
    for line in lines:
        assert re.fullmatch(r"\d+/450 iterations, \S+ it/s, \d+:\d\d:\d\d left(, error [\d.e-]+)?", line)
    assert "error" in lines[-1]


@pytest.mark.parametrize(("kind", "score"), [("truth", r"psnr \d+\.\d\d dB"), ("no truth", r"loss \S+")])
def test_the_score_is_the_best_one_known(
    kind: str, score: str, fit, image_method, images, tmp_path: Path, capsys
) -> None:
    data = images() if kind == "truth" else images(noise=None)
    fit(tmp_path, image_method(evaluate_every=5), data, 10)
    assert re.search(rf"left, {score}$", capsys.readouterr().err.strip())


def test_resumed_run_starts_at_its_iteration(
    fit, matrix_method, matrices, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tmp_path, matrix_method(), matrices(), 400)
    capsys.readouterr()
    fit(tmp_path, matrix_method(), matrices(), 800, resume=True)
    shown = iterations(capsys.readouterr().err)
    assert min(shown) > 400
    assert shown[-1] == 800
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fit(tmp_path, matrix_method(), matrices(), 1000, resume=True)
    shown = iterations(terminal.getvalue())
    assert (shown[0], shown[-1]) == (800, 1000)


def test_a_terminal_gets_a_bar(fit, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fit(tmp_path, matrix_method(), matrices(), 400)
    shown = terminal.getvalue()
    assert iterations(shown)[0] == 0
    assert iterations(shown)[-1] == 400
    assert "\r" in shown
    assert shown.endswith("\n")
    assert "error" in shown


def test_an_interrupted_bar_is_closed(
    fit, matrix_method, matrices, stop_at, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fit(tmp_path, matrix_method(), matrices(), 400, stop_at(200))
    assert iterations(terminal.getvalue())[-1] == 200
    assert terminal.getvalue().endswith("\n")


def test_no_remaining_time_without_an_end(fit, matrix_method, matrices, stop_at, tmp_path: Path, capsys) -> None:
    fit(tmp_path, matrix_method(block=500), matrices(), -1, stop_at(2000), max_time={"days": 1})
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("3 problems, as long as max_time allows")
    assert [line.split(",")[0] for line in lines] == ["1000 iterations", "2000 iterations"]
    assert not any("left" in line for line in lines)


def test_disabled_progress_is_silent(make_trainer, matrix_method, matrices, tmp_path: Path, capsys) -> None:
    trainer = make_trainer(tmp_path, 200)
    progress = next(callback for callback in trainer.callbacks if isinstance(callback, IterationProgress))
    progress.disable()
    trainer.fit(matrix_method(), datamodule=matrices())
    assert capsys.readouterr().err == ""
    progress.enable()
    trainer.fit(matrix_method(), datamodule=matrices())
    assert iterations(capsys.readouterr().err)[-1] == 200


def test_the_time_is_estimated_by_the_largest_problem(
    fit, image_method, images, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.5 s an iteration of 16×16 pixels; the two of 8×16 take half of that each."""
    timed = []

    def half_a_second(state, **_: object) -> float:
        timed.append(state.problems.signal_shape)
        return 0.5

    monkeypatch.setattr("dop_lightning.lightning.callbacks.estimate.seconds_per_iteration", half_a_second)
    for name, height in (("a", 16), ("b", 8), ("c", 8)):
        Image.fromarray(np.zeros((height, 16), np.uint8)).save(tmp_path / f"{name}.png")
    data = images(images=str(tmp_path), noise=None, resize=None)
    fit(tmp_path / "run", image_method(), data, 30, callbacks=with_estimate())
    assert timed == [(1, 16, 16)]
    assert "The iterations will take about 30 seconds, 0.5 s each for the largest problem" in capsys.readouterr().err
    fit(tmp_path / "half", image_method(), data, 10)
    capsys.readouterr()
    fit(tmp_path / "half", image_method(), data, 30, callbacks=with_estimate(), resume=True)
    assert "The iterations will take about 20 seconds, 0.5 s each for the largest problem" in capsys.readouterr().err


@pytest.mark.parametrize(("by", "status"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_signal_during_the_estimate_is_handled(
    by: signal.Signals, status: str, fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def slow(state, iterations: int) -> list[int]:
        timed.append(iterations)
        os.kill(os.getpid(), by)
        return []

    monkeypatch.setattr("dop_lightning.engine.descent.BatchState.advance", slow)
    run = fit(tmp_path, image_method(), images(), 30, callbacks=with_estimate())
    assert timed == [1]
    assert run.module.stopped_by == status
    assert run.statuses == []  # it has not begun


def with_estimate() -> list[pl.Callback]:
    """The callbacks of every run; the progress callback prints the time."""
    return [IterationProgress(estimate=True) if isinstance(c, IterationProgress) else c for c in standard_callbacks()]
