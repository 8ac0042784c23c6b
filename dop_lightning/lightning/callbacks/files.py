"""Write the files of each problem (result, pictures, recovered file) and the table of the run."""

import functools
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from tqdm import tqdm

from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.atomic import (
    atomic_bytes,
    make_folder,
    recorded_checksums,
    write_atomically,
    written_together,
)
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.checksums import MISSING
from dop_lightning.foundation.machine import return_freed_memory
from dop_lightning.images.formats import encode_pixels, write_image
from dop_lightning.images.pictures import recovery_pictures
from dop_lightning.images.tiles import Mosaic
from dop_lightning.images.verdict import verdict
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.callbacks.preview import PREVIEW
from dop_lightning.lightning.data.base import Source, data_of
from dop_lightning.lightning.data.images import ImageFile
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.matrices.robust_separation import describe
from dop_lightning.matrices.scenes.layers import WritingStopped
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.curves import rebuild
from dop_lightning.runs.damage import Damage, find_damage, update_files
from dop_lightning.runs.folder import RESULT, RunFolder
from dop_lightning.runs.histograms import HISTOGRAM, Histogram, corruption_histogram, write_histogram
from dop_lightning.runs.mosaics import PROBABILITY, assemble, is_assembled
from dop_lightning.runs.results import write_result, write_table

MAX_NAMED = 3
"""Maximum number of damaged files of a problem that are printed."""

MAX_QUICK_VALUES = 2**22
"""Maximum number of values of an image whose tiles are assembled after a signal, and not by the next start."""

LARGE_PICTURE = 2**20
"""Minimum number of values of pictures that are encoded in other threads."""


class RecoveredFiles(RecoveryCallback):
    """Write ``RUN/<problem>/``: recovered.npy, pictures, the histogram of |ŝ|, and finally result.json.

    The pictures are observation.png, recovered.png, corruption.png, truth.png if the truth is known, and
    comparison.png, which shows all of them side by side. ``result.json`` is written last: if it exists, the other files
    do too. A recovered image has the size, mode, depth and format of its source file (for example, ``recovered.tif``),
    and is also written as ``recovered.png`` for viewing if the format differs. If the source file contains measurements
    of the image instead, the image has its own size. For matrices, ``corruption.npy`` is written as well.
    ``corruption_probability.npy``, and for images ``corruption_probability.png``, are written if the method estimates
    it. Tiles of an image save arrays and results in its folder, and are assembled at the end of the run; large images
    are not assembled after a signal.

    Args:
        most_pictures: maximum number of problems, from the first one on, with pictures and histograms; ``None`` for
            all. For many small matrices, pictures take longer to write than all other files. Recovered images are
            always written.
    """

    def __init__(self, most_pictures: int | None = None) -> None:
        self.most_pictures = None if most_pictures is None else at_least("most_pictures", most_pictures, 0)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rewrite missing and damaged files of finished problems of a resumed run."""
        module = recovery_module(pl_module)
        for problem in data_of(trainer).problems:
            if problem.name not in module.records:
                continue  # handled by another process
            record = module.records[problem.name]
            if not (module.roster.is_inactive(problem.name) and record.is_finished(module.maximum)):
                continue
            if damaged := find_damage(Path(trainer.default_root_dir), problem.folder):
                _print_damaged(damaged)
                self.on_problem_end(trainer, module, module.outcome_of(problem.name))

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Write the files of a problem. A signal while a scene is written leaves it to the next start."""
        folder = Path(trainer.default_root_dir) / outcome.problem.folder
        source, stops = outcome.problem.source, not module.stopped_by
        if isinstance(source, Source) and stops:
            source.is_stopped = lambda: bool(module.stopped_by)
        try:
            self._write(module, folder, outcome, self._has_pictures(trainer, outcome.problem))
        except WritingStopped:
            print(f"{outcome.problem.name}: incomplete; run the same command again to write the rest", file=sys.stderr)
        finally:
            if isinstance(source, Source) and stops:
                del source.is_stopped  # a function per problem would take more memory than its name

    def _write(self, module: DoubleOverparameterization, folder: Path, outcome: Outcome, with_pictures: bool) -> None:
        with written_together(), recorded_checksums() as files:
            self.write_recovery(folder, outcome, with_pictures)
            _print_changes(outcome)
            best: dict[str, float] = {}
            for callback in module.recovery_callbacks:
                if isinstance(callback, RecoveryMetrics):
                    best = callback.best(outcome.problem.name, outcome.iteration, outcome.scores)
            higher_is_better = module.metrics.higher_is_better(outcome.scores)
            write_result(folder, outcome, best, machine(module), higher_is_better, files)

    def _has_pictures(self, trainer: pl.Trainer, problem: Problem) -> bool:
        wholes = data_of(trainer).wholes[: self.most_pictures]
        return self.most_pictures is None or any(whole.name == problem.name for whole in wholes)

    @staticmethod
    def write_recovery(folder: Path, outcome: Outcome, with_pictures: bool = True) -> None:
        """Write all files of a problem except its result."""
        make_folder(folder)
        source = outcome.problem.source
        models_corruption = outcome.alpha is not None or bool(outcome.report)
        if with_pictures and models_corruption and not outcome.problem.is_tile:
            write_histogram(folder / HISTOGRAM, _histogram(outcome))
        if isinstance(source, Source) and source.write(folder, outcome):
            return
        format = source.format_of(outcome.signal.shape) if isinstance(source, ImageFile) else None
        written = None if format is None else folder / f"recovered{format.suffix}"
        if written != folder / "recovered.npy":
            _write_array(folder / "recovered.npy", outcome.signal)
        if outcome.problem.is_tile or outcome.signal.dim() != 3:
            _write_array(folder / "corruption.npy", outcome.corruption)
        _write_probability(folder, outcome)
        if outcome.problem.is_tile:
            return
        pictures = recovery_pictures(outcome) if with_pictures else {}
        if written is not None and written.name == "recovered.png":
            pictures.pop("recovered", None)
        with _encoded(pictures) as encoded:
            if format is not None and written is not None:
                write_image(written, outcome.signal, format)
            for name, content in encoded:
                atomic_bytes(folder / f"{name}.png", content)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the files of a problem recovered by a checkpoint, for ``dop predict``."""
        folder = Path(trainer.default_root_dir) / outputs.problem.folder
        with recorded_checksums() as files:
            self.write_recovery(folder, outputs, self._has_pictures(trainer, outputs.problem))
        update_files(folder, files)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Assemble tiles, and rebuild the table of the run, including problems of other processes."""
        run = Path(trainer.default_root_dir)
        is_stopped = bool(recovery_module(pl_module).stopped_by)
        for mosaic in data_of(trainer).mosaics.values():
            if is_stopped and mosaic.whole.entries > MAX_QUICK_VALUES:
                _print_remaining(run, mosaic)
            elif not is_assembled(run, mosaic):
                _print_damaged(find_damage(run, mosaic.whole.folder))
                self._assemble(trainer, pl_module, mosaic)
                _print_remaining(run, mosaic)
        names = [whole.name for whole in data_of(trainer).wholes]
        rebuild(RunFolder(run).result_paths, lambda: write_table(run, names, brief=True))

    def _assemble(self, trainer: pl.Trainer, module: pl.LightningModule, mosaic: Mosaic) -> None:
        run, whole, metrics = Path(trainer.default_root_dir), mosaic.whole, recovery_module(module).metrics

        return_freed_memory()  # memory of the tiles, which the whole image cannot reuse

        def build() -> None:
            outcome = assemble(run, mosaic, metrics)
            if outcome is not None:
                with recorded_checksums() as files:
                    self.write_recovery(run / whole.folder, outcome, self._has_pictures(trainer, whole))
                _print_changes(outcome)
                higher_is_better = metrics.higher_is_better(outcome.scores)
                write_result(run / whole.folder, outcome, {}, machine(module), higher_is_better, files)

        rebuild(lambda: [run / tile.folder / RESULT for tile in mosaic.tiles.values()], build)


def _print_damaged(damaged: Sequence[Damage]) -> None:
    """Print damaged files that will be rewritten. A missing result is not reported."""
    named = [each for each in damaged if each.what != MISSING or each.path.name != RESULT]
    for each in named[:MAX_NAMED]:
        print(f"{each.path}: {each.what}: rewriting it", file=sys.stderr)
    if len(named) > MAX_NAMED:
        print(f"… and {len(named) - MAX_NAMED} more files", file=sys.stderr)


def _print_changes(outcome: Outcome) -> None:
    """Print the method chosen for a matrix, and changes to an image file that are not obvious."""
    problem = outcome.problem
    if outcome.report:
        tqdm.write(f"{problem.name}: {describe(outcome.report)}", file=sys.stderr)
    if isinstance(problem.source, ImageFile) and not problem.is_tile and (line := verdict(outcome)):
        tqdm.write(line, file=sys.stderr)  # above the progress bar, if any


def _print_remaining(run: Path, mosaic: Mosaic) -> None:
    """Print how many tiles are done, and the path of the preview, if tiles are missing."""
    finished = sum((run / tile.folder / RESULT).is_file() for tile in mosaic.tiles.values())
    if finished < len(mosaic.tiles):
        whole = run / mosaic.whole.folder
        seen = f"; {whole / PREVIEW} shows the current state" if (whole / PREVIEW).is_file() else ""
        print(
            f"{mosaic.whole.name}: {finished} of {len(mosaic.tiles)} tiles are done{seen}. "
            "Run the same command again to continue.",
            file=sys.stderr,
        )


def _histogram(outcome: Outcome) -> Histogram:
    problem = outcome.problem
    true, mask = (None if t is None else t.numpy() for t in (problem.true_corruption, problem.mask))
    return corruption_histogram(outcome.corruption.numpy(), true, mask)


def _write_probability(folder: Path, outcome: Outcome) -> None:
    """Write the probability of corruption of each entry, or remove an outdated file if it is unknown."""
    if outcome.corruption_probability is not None:
        _write_array(folder / PROBABILITY, outcome.corruption_probability)
        return
    for name in (PROBABILITY, Path(PROBABILITY).with_suffix(".png")):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _encoded(pictures: dict[str, np.ndarray]) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Yield the names and PNG files of pictures; large ones are encoded in other threads, if torch uses several."""
    threads = min(len(pictures), torch.get_num_threads())
    if threads < 2 or max(picture.size for picture in pictures.values()) < LARGE_PICTURE:
        yield ((name, encode_pixels(picture)) for name, picture in pictures.items())
        return
    pool = ThreadPoolExecutor(threads, "picture")
    try:
        yield zip(pictures, pool.map(encode_pixels, pictures.values()), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, pictures that have not started are not encoded


def _write_array(path: Path, array: torch.Tensor) -> None:
    write_atomically(path, lambda file: np.save(file, array.numpy()), streamed=True)


def machine(module: pl.LightningModule) -> dict[str, Any]:
    """Describe the machine and the versions that computed a result."""
    device = module.trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": str(device),
        "name": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **_package_version(),
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
        "numpy": np.__version__,
    }


@functools.cache
def _package_version() -> dict[str, str]:
    """Return the version of this package; empty if it is not installed."""
    try:
        return {"dop_lightning": version("dop_lightning")}
    except PackageNotFoundError:
        return {}
