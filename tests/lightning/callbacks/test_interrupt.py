"""Ctrl-C and SIGTERM."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.rivals.base import Flags, Image, ImageFilter
from dop_lightning.engine.steps import GradientDescent
from dop_lightning.lightning.callbacks import PreviewFile
from dop_lightning.lightning.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs.checkpoints import LAST


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_block(
    number: signal.Signals, fit, matrix_method, matrices, stop_at, tmp_path: Path, capsys
) -> None:
    run = fit(tmp_path, matrix_method(), matrices(), 1000, stop_at(300, number))
    assert run.module.stopped_by == number.name
    assert run.iterations == [300] * 3
    assert run.trainer.global_step == 300
    assert "Stopping: saving the current state" in capsys.readouterr().err


def test_signal_handlers_are_restored(fit, matrix_method, matrices, stop_at, tmp_path: Path) -> None:
    before = handlers()
    fit(tmp_path / "a", matrix_method(), matrices(), 200)
    assert handlers() == before
    fit(tmp_path / "b", matrix_method(), matrices(), 1000, stop_at(300, signal.SIGINT))
    assert handlers() == before


def test_signal_handlers_are_restored_after_an_error(fit, matrix_method, matrices, tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("a mistake elsewhere")

    before = handlers()
    with pytest.raises(RuntimeError, match="a mistake elsewhere"):
        fit(tmp_path, matrix_method(), matrices(), 200, Fails())
    assert handlers() == before


def test_a_second_signal_acts_at_once(fit, matrix_method, matrices, tmp_path: Path) -> None:
    class Impatient(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal was ignored")

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, matrix_method(), matrices(), 1000, Impatient())


def test_continued_run_has_no_stop_signal(fit, matrix_method, matrices, stop_at, tmp_path: Path) -> None:
    module = matrix_method()
    fit(tmp_path, module, matrices(), 1000, stop_at(300, signal.SIGINT))
    run = fit(tmp_path, module, matrices(), 1000, stop_at(600, signal.SIGTERM))
    assert module.stopped_by == "SIGTERM"
    assert run.iterations == [600] * 3
    fit(tmp_path, module, matrices(), 1000)
    assert module.stopped_by == ""


def test_undisturbed_run_has_no_stop_signal(fit, matrix_method, matrices, tmp_path: Path) -> None:
    assert fit(tmp_path, matrix_method(), matrices(), 100).module.stopped_by == ""


def test_run_in_another_thread_installs_no_handlers(fit, matrix_method, matrices, tmp_path: Path) -> None:
    before = handlers()
    runs: list[Any] = []
    thread = threading.Thread(target=lambda: runs.append(fit(tmp_path, matrix_method(), matrices(), 100)))
    thread.start()
    thread.join()
    assert runs[0].statuses == ["done"] * 3
    assert handlers() == before


class Interrupted(ImageFilter):
    """Presses Ctrl-C while it restores its second image."""

    def __init__(self) -> None:
        self.images = 0

    def restore(self, image: Image, missing: Flags) -> Image:
        self.images += 1
        if self.images == 2:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the filter was not interrupted")
        return np.zeros_like(image)


def test_a_filter_is_interrupted_within_an_image(fit, images, tmp_path: Path, capsys) -> None:
    """The first tile is done, the second starts again, and the others have not begun."""
    data = images(noise=None, resize=40, tile=24)
    run = fit(tmp_path, DoubleOverparameterization(filter=Interrupted()), data, 1, PreviewFile(1e-9))
    assert run.module.stopped_by == "SIGINT"
    assert sorted(record.iteration for record in run.module.records.values()) == [0, 0, 0, 1]
    (mosaic,) = data.mosaics.values()
    whole = tmp_path / mosaic.whole.folder
    assert not (whole / "recovered.png").exists()
    seen = f"; {whole / 'preview.png'} shows the current state"
    assert f"1 of 4 tiles are done{seen}. Run the same command again to continue." in capsys.readouterr().err
    (state,) = run.states().values()  # those that have not begun are not saved
    assert state["/iteration"] == 1
    again = images(noise=None, resize=40, tile=24)
    resumed = fit(tmp_path, DoubleOverparameterization(filter=Interrupted()), again, 1, resume=True, max_time=None)
    assert resumed.module.stopped_by == "SIGINT"  # by its own second image
    assert sorted(record.iteration for record in resumed.module.records.values()) == [0, 0, 1, 1]


class Cut(GradientDescent):
    """Presses Ctrl-C in its third block, when θ, g and h have moved."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = 0

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        loss = super().descend(state, iterations)
        self.blocks += 1
        if self.blocks == 3:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the block was not cut")
        return loss


def test_interrupted_block_is_repeated_with_the_same_bits(fit, matrix_method, matrices, tmp_path: Path) -> None:
    cut = fit(tmp_path / "cut", matrix_method(steps=Cut()), matrices(), 400)
    assert cut.module.stopped_by == "SIGINT"
    assert cut.iterations == [200] * 3
    resumed = fit(tmp_path / "cut", matrix_method(), matrices(), 400, resume=True)
    resumed.assert_equals(fit(tmp_path / "whole", matrix_method(), matrices(), 400))


def test_a_second_signal_waits_until_the_state_is_saved(fit, matrix_method, matrices, stop_at, tmp_path: Path) -> None:
    class Impatient(RecoveryCallback):
        saved = 0

        def problem_state(self, name: str) -> dict[str, Any]:
            self.saved += 1
            os.kill(os.getpid(), signal.SIGINT)
            return {}

    impatient = Impatient()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, matrix_method(), matrices(), 1000, stop_at(300, signal.SIGTERM), impatient)
    assert impatient.saved == 3
    assert not list(tmp_path.rglob("*.tmp"))
    states = FolderCheckpointIO().load_checkpoint(tmp_path / LAST)["problems"]
    assert [(state["iteration"], state["status"]) for state in states.values()] == [(300, "interrupted")] * 3
