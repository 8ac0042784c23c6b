"""When a run is saved, and where."""

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.foundation.checks import positive
from dop_lightning.lightning.callbacks.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.module import recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback

LAST = Path("checkpoints") / "last.ckpt"


def last_checkpoint(run: Path) -> Path | None:
    """The last checkpoint of a run, ``None`` where there is none."""
    path = run / LAST
    return path if any(path.glob("*.pt")) else None


class CheckpointFolder(RecoveryCallback):
    """Saves ``RUN/checkpoints/last.ckpt`` every few minutes and at the end of a run, also after Ctrl-C and SIGTERM.

    An exception (a full disk, say) costs at most the time since the last checkpoint.

    Args:
        every_minutes: time between two checkpoints, above 0.

    Attributes:
        mark: the fingerprint of the run, where it has one: its files are recognised by it.
    """

    def __init__(self, every_minutes: float = 5.0) -> None:
        self.every_minutes = positive("every_minutes", every_minutes)
        self.mark = ""
        self._saved_at = time.monotonic()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Teach the strategy to read and write folders; comes before a checkpoint is loaded."""
        trainer.strategy.checkpoint_io = FolderCheckpointIO(self.mark, lambda: self._own(pl_module))

    def _own(self, module: pl.LightningModule) -> set[str] | None:
        """The batches to be read: those of this process, where the run is known to be the one that has written them."""
        module = recovery_module(module)
        return set(module.roster.labels) if self.mark and module.is_configured else None

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
