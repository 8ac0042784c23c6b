"""Checkpoints: a folder, one file a problem, replaced as a whole."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from dop_lightning.checks import positive
from dop_lightning.files.atomic import write_atomically
from dop_lightning.recovery_callback import RecoveryCallback

LAST = Path("checkpoints") / "last.ckpt"


class FolderCheckpointIO(CheckpointIO):
    """Saves a checkpoint as a folder: ``run.pt`` and, for every problem, ``problems/<name>.pt``.

    The folder is written beside its place and renamed, so that a reader finds an old checkpoint or a new one, never
    half of one. The one before is kept until the new one is in its place.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the folder ``path``."""
        path = Path(path)
        fresh, old = _beside(path, "new"), _beside(path, "previous")
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "problems").mkdir(parents=True)
        try:
            for name, state in checkpoint["problems"].items():
                _save(fresh / "problems" / f"{name}.pt", state)
            _save(fresh / "run.pt", {key: value for key, value in checkpoint.items() if key != "problems"})
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            fresh.rename(path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the folder ``path``; where a crash left only the one before, that one.

        Raises:
            ValueError: there is none, or a file in it is damaged.
        """
        path = Path(path)
        folder = path if path.exists() else _beside(path, "previous")
        if not (folder / "run.pt").is_file():
            raise ValueError(f"{path}: not a checkpoint folder written by dop")
        checkpoint = _load(folder / "run.pt")
        checkpoint["problems"] = {file.stem: _load(file) for file in sorted((folder / "problems").glob("*.pt"))}
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the folder."""
        shutil.rmtree(path, ignore_errors=True)


def last_checkpoint(run: Path) -> Path | None:
    """The last checkpoint of a run, ``None`` where there is none."""
    path = run / LAST
    return path if path.exists() or _beside(path, "previous").exists() else None


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.name}.{word}")


def _save(path: Path, state: Any) -> None:
    write_atomically(path, lambda file: torch.save(state, file))


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: damaged, or not a checkpoint written by dop ({reason})") from error


class CheckpointFolder(RecoveryCallback):
    """Saves ``RUN/checkpoints/last.ckpt`` every few minutes and at the end of a run, also after Ctrl-C and SIGTERM.

    An exception (a full disk, say) costs at most the time since the last checkpoint.

    Args:
        every_minutes: time between two checkpoints, above 0.
    """

    def __init__(self, every_minutes: float = 5.0) -> None:
        self.every_minutes = positive("every_minutes", every_minutes)
        self._saved_at = time.monotonic()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Teach the strategy to read and write folders; comes before a checkpoint is loaded."""
        trainer.strategy.checkpoint_io = FolderCheckpointIO()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts."""
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time."""
        if time.monotonic() - self._saved_at >= 60 * self.every_minutes:
            self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save now."""
        path = Path(trainer.default_root_dir) / LAST
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(os.fspath(path))
        self._saved_at = time.monotonic()
