"""Write a preview of each image during its recovery."""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dop_lightning.engine.concurrency import threads_of
from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.state import State
from dop_lightning.foundation.atomic import write_atomically
from dop_lightning.foundation.checks import positive
from dop_lightning.images.preview import Preview
from dop_lightning.images.tiles import Place
from dop_lightning.lightning.data.base import RecoveryDataModule, data_of
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.folder import RESULT

PREVIEW = "preview.png"

MAX_TIME_FRACTION = 0.02
"""Maximum fraction of the time spent on previews, after the first ones."""

MAX_EVALUATION_FRACTION = 0.01
"""Maximum fraction of the time spent on evaluating tiles only for previews; a part of :data:`MAX_TIME_FRACTION`."""

MAX_SECONDS_AFTER_SIGNAL = 0.3
"""Maximum duration of a preview in seconds for one to be written after a signal."""

SMALL = 2**21
"""Maximum number of values of images whose first preview counts as quick."""


class PreviewFile(RecoveryCallback):
    """Write ``RUN/<image>/preview.png`` while an image is recovered: the current estimate of the image.

    Tiles that have not started show the observation; tiles after their first block show the interpolation that guides
    their network, if any. Sides of more than 2048 pixels are reduced by averaging with an integer factor. The file is
    replaced atomically, and removed when the recovered image has been written.

    Previews take at most 2 % of the time, so they are less frequent for large images. They do not change the result.

    Args:
        every: minimum time between two previews in seconds, positive; ``None`` disables previews.
    """

    def __init__(self, every: float | None = None) -> None:
        self.every = None if every is None else positive("every", every)
        self._begin = 0.0
        self._spent = 0.0
        self._looking = 0.0
        self._writing = 0.0
        self._is_announced = False
        self._wholes: dict[str, Problem] = {}
        self._places: dict[str, Place] = {}
        self._previews: dict[str, Preview] = {}
        self._due: dict[str, float] = {}
        self._changed: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """List the images of this process. Images whose tiles are divided among processes have no preview."""
        self._previews, self._due, self._wholes, self._changed = {}, {}, {}, set()
        if self.every is None:
            return
        data, records = data_of(trainer), recovery_module(pl_module).records
        for whole in data.wholes:
            if len(whole.signal_shape) != 3 or whole.data_range is None:
                continue
            tiles = _tiles(data, whole)
            if all(name in records for name in tiles.values()):
                self._wholes |= dict.fromkeys(tiles.values(), whole)
                self._places |= {name: place for place, name in tiles.items()}
        self._begin, self._spent, self._looking, self._writing = time.perf_counter(), 0.0, 0.0, 0.0

    def on_block(self, trainer: pl.Trainer, module: DoubleOverparameterization, state: State, iterations: int) -> None:
        """Evaluate a batch if time permits, and update the previews that have changed."""
        names = [name for name in state.problems.names if name in self._wholes]
        if not names or module.stopped_by:
            return
        begin = time.perf_counter()
        if any(problem.is_tile for problem in state.problems):
            self._evaluate_tiles(trainer, state)
        elif iterations == state.iteration == module.maximum:
            return  # the whole run is one block; a regular evaluation follows at once
        elif self._is_due(names[0], begin) and self._is_affordable(self._looking + self._writing, MAX_TIME_FRACTION):
            self._evaluate_state(trainer, state)
        for name in {self._wholes[name].name: name for name in names}.values():
            self._write_if_due(trainer, name)
        self._spent += time.perf_counter() - begin

    def _evaluate_tiles(self, trainer: pl.Trainer, state: State) -> None:
        """Show the interpolations of tiles that start, and occasionally evaluate other tiles."""
        guides = getattr(state, "memory", {}).get("guide")
        have_tiles = [self._has_tile(trainer, name) for name in state.problems.names]
        if guides is not None and not all(have_tiles):
            for name, guide in zip(state.problems.names, guides, strict=True):
                if bool(guide.any()):  # otherwise, the tile has no interpolation and ends now
                    self._show(trainer, name, guide)
        elif self._is_affordable(self._looking, MAX_EVALUATION_FRACTION):
            self._evaluate_state(trainer, state)

    def _evaluate_state(self, trainer: pl.Trainer, state: State) -> None:
        begin = time.perf_counter()
        with threads_of(state):
            signals = state.evaluate().signal
        for name, signal in zip(state.problems.names, signals, strict=True):
            self._show(trainer, name, signal)
        self._looking = time.perf_counter() - begin

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Show the result of a regular evaluation."""
        if any(name in self._wholes for name in batch.problems.names):
            begin = time.perf_counter()
            for name, signal in zip(batch.problems.names, batch.evaluation.signal, strict=True):
                self._show(trainer, name, signal)
            self._spent += time.perf_counter() - begin

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Show the final state of a tile. Remove the preview of an image without tiles, whose result is written."""
        name = outcome.problem.name
        if name not in self._wholes:
            return
        begin = time.perf_counter()
        if outcome.problem.is_tile:
            self._show(trainer, name, outcome.signal, last=outcome.status != "interrupted")
            self._write_if_due(trainer, name)
            self._free_if_complete(trainer, name)
        else:
            self._remove(trainer, self._wholes[name])
        self._spent += time.perf_counter() - begin

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last previews; after an interruption, only if this is quick."""
        if recovery_module(pl_module).stopped_by and not self._is_small():
            return
        for name in {self._wholes[name].name: name for name in self._wholes}.values():
            self._write(trainer, name)

    def _is_small(self) -> bool:
        if self._writing > 0:
            return self._writing <= MAX_SECONDS_AFTER_SIGNAL
        return all(whole.entries <= SMALL for whole in self._wholes.values())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the previews of assembled images."""
        for whole in {whole.name: whole for whole in self._wholes.values()}.values():
            if (Path(trainer.default_root_dir) / whole.folder / RESULT).is_file():
                self._remove(trainer, whole)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Free the pictures."""
        self._previews, self._wholes, self._changed = {}, {}, set()

    def _preview(self, trainer: pl.Trainer, name: str) -> Preview:
        whole = self._wholes[name]
        if whole.name not in self._previews:
            mosaic = data_of(trainer).mosaics.get(whole.name)
            preview = self._previews[whole.name] = Preview(whole, None if mosaic is None else mosaic.grid)
            for place, tile in ({} if mosaic is None else mosaic.tiles).items():
                folder = Path(trainer.default_root_dir) / tile.folder
                if (folder / RESULT).is_file():  # recovered by an earlier start
                    with suppress(OSError, ValueError):
                        preview.show(torch.from_numpy(np.load(folder / "recovered.npy")), place, last=True)
        return self._previews[whole.name]

    def _has_tile(self, trainer: pl.Trainer, name: str) -> bool:
        return self._preview(trainer, name).has(self._places[name])

    def _show(self, trainer: pl.Trainer, name: str, values: Tensor, last: bool = False) -> None:
        self._preview(trainer, name).show(values, self._places[name], last)
        self._changed.add(self._wholes[name].name)

    def _is_due(self, name: str, now: float) -> bool:
        return now >= self._due.get(self._wholes[name].name, 0.0)

    def _is_affordable(self, seconds: float, share: float) -> bool:
        """Return whether additional seconds stay within a fraction of the total time; first measurements are free."""
        return seconds == 0.0 or self._spent + seconds <= share * (time.perf_counter() - self._begin)

    def _write_if_due(self, trainer: pl.Trainer, name: str) -> None:
        first = self._wholes[name].name not in self._due
        if self._is_due(name, time.perf_counter()) and (first or self._is_affordable(self._writing, MAX_TIME_FRACTION)):
            self._write(trainer, name)

    def _write(self, trainer: pl.Trainer, name: str) -> None:
        """Write the preview of the image that a problem belongs to, if it has changed."""
        whole, now = self._wholes[name], time.perf_counter()
        if whole.name not in self._changed:
            return
        path = Path(trainer.default_root_dir) / whole.folder / PREVIEW
        with suppress(OSError):  # the run continues without previews
            write_preview(path, self._preview(trainer, name).picture())
            if not self._is_announced and trainer.is_global_zero:
                self._is_announced = True
                tqdm.write(f"Preview, updated regularly: {path}", file=sys.stderr)
        self._changed.discard(whole.name)
        self._writing = time.perf_counter() - now
        self._due[whole.name] = now + (self.every or 0.0)

    def _free_if_complete(self, trainer: pl.Trainer, name: str) -> None:
        """Write and free the preview of an image whose tiles have all ended, since there may be thousands of images."""
        data, whole = data_of(trainer), self._wholes[name]
        if len(data.wholes) > 1 and self._preview(trainer, name).ended == len(_tiles(data, whole)):
            self._write(trainer, name)
            self._previews.pop(whole.name, None)
            self._due.pop(whole.name, None)

    def _remove(self, trainer: pl.Trainer, whole: Problem) -> None:
        self._previews.pop(whole.name, None)
        self._due.pop(whole.name, None)
        self._changed.discard(whole.name)
        with suppress(OSError):
            (Path(trainer.default_root_dir) / whole.folder / PREVIEW).unlink(missing_ok=True)


def _tiles(data: RecoveryDataModule, whole: Problem) -> Mapping[Place, str]:
    """Return the names of the tiles of an image, or of the image itself, by (row, column)."""
    mosaic = data.mosaics.get(whole.name)
    return {(0, 0): whole.name} if mosaic is None else {place: tile.name for place, tile in mosaic.tiles.items()}


def write_preview(path: Path, picture: np.ndarray) -> None:
    """Write a picture as a PNG file, optimized for speed."""
    image = Image.fromarray(picture)
    write_atomically(path, lambda file: image.save(file, format="PNG", compress_level=1), durable=False)
