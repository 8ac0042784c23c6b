"""Save a run at regular intervals and at its end."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.foundation import interrupts
from dop_lightning.foundation.atomic import make_folder
from dop_lightning.foundation.checks import positive
from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.lightning.checkpoint_io import FolderCheckpointIO, StateInFile
from dop_lightning.lightning.module import recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs.checkpoints import LAST as LAST

MAX_KEPT = 8
"""Maximum number of ended problems that take turns, such as tiles, in memory before they are saved."""


def last_checkpoint(run: Path) -> Path | None:
    """Return the path of the last checkpoint of a run; ``None`` if there is no checkpoint."""
    path = run / LAST
    return path if any(path.glob("*.pt")) else None


class CheckpointFolder(RecoveryCallback):
    """Save ``RUN/checkpoints/last.ckpt`` every few minutes and at the end of a run, including after Ctrl-C and SIGTERM.

    After an exception, such as a full disk, at most the work since the last checkpoint is lost.

    Args:
        every_minutes: time between two checkpoints in minutes, positive.

    Attributes:
        fingerprint: fingerprint of the run, if it has one, by which it recognizes its files.
    """

    def __init__(self, every_minutes: float = 5.0) -> None:
        self.every_minutes = positive("every_minutes", every_minutes)
        self.fingerprint = ""
        self._saved_at = time.monotonic()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the strategy read and write checkpoint folders. Runs before a checkpoint is loaded."""
        files = FolderCheckpointIO(
            self.fingerprint,
            lambda: self._own_batches(pl_module),
            trainer.strategy.checkpoint_io,
            lambda name: _takes_turns(pl_module, name),
        )
        files.reserve(Path(trainer.default_root_dir) / LAST)
        trainer.strategy.checkpoint_io = files

    def _own_batches(self, module: pl.LightningModule) -> set[str] | None:
        """Return the batches to read: those of this process, or all if the run is unknown."""
        module = recovery_module(module)
        return set(module.roster.labels) if self.fingerprint and module.is_configured else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock.

        Raises:
            ValueError: a ``ModelCheckpoint`` would write its last checkpoint to the path of this folder.
        """
        own = Path(trainer.default_root_dir) / LAST
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, pl.callbacks.ModelCheckpoint) and callback.save_last and callback.dirpath:
                file = Path(callback.dirpath) / f"{callback.CHECKPOINT_NAME_LAST}{callback.FILE_EXTENSION}"
                if file.absolute() == own.absolute():
                    raise ValueError(
                        f"ModelCheckpoint(save_last=…) must write elsewhere than {own}, the checkpoint folder of the "
                        "run; set its dirpath"
                    )
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save periodically, and save ended problems that take turns, whose states need not stay in memory."""
        if time.monotonic() - self._saved_at >= 60 * self.every_minutes:
            self.save(trainer)
        elif len(kept := recovery_module(pl_module).roster.kept()) >= MAX_KEPT:
            self._save_ended(trainer, kept)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after a signal, before other files are written. After that, a second signal ends the run immediately."""
        module = recovery_module(pl_module)
        if not module.stopped_by:
            return
        for batch, _ in module.roster.unfinished():
            for name in batch.names:
                module.records[name].status = "interrupted"
        self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the final state."""
        self.save(trainer)

    def _save_ended(self, trainer: pl.Trainer, names: Sequence[str]) -> None:
        """Save ended tiles, and replace their states in memory by references to the files."""
        module, path = recovery_module(trainer.lightning_module), Path(trainer.default_root_dir) / LAST
        labels = {name: module.roster.label_of(name) for name in names}
        make_folder(path)
        trainer.strategy.save_checkpoint({"batches": module.saved_batches(set(labels.values()))}, os.fspath(path))
        for name, label in labels.items():
            module.roster.store_state(name, StateInFile(path, label, name))

    def save(self, trainer: pl.Trainer) -> None:
        """Save now. A second signal in the meantime takes effect afterwards."""
        with interrupts.finishing():
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        path = Path(trainer.default_root_dir) / LAST
        make_folder(path.parent)
        module = recovery_module(trainer.lightning_module)
        if kept := module.roster.kept():
            self._save_ended(trainer, kept)
        batches = module.saved_batches()
        trainer.strategy.save_checkpoint({"batches": batches, "callbacks": _callback_states(trainer)}, os.fspath(path))
        self._saved_at = time.monotonic()

    # Old names, until version 0.3.
    mark = RenamedAttribute("fingerprint")


def _takes_turns(module: pl.LightningModule, name: str) -> bool:
    module = recovery_module(module)
    return module.is_configured and module.roster.waits_for_turn(name)


def _callback_states(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the states of Lightning callbacks in a run with one process, except time limits, which are per start."""
    every: list[pl.Callback] = trainer.callbacks if trainer.world_size == 1 else []  # type: ignore[attr-defined]
    foreign = [callback for callback in every if not isinstance(callback, RecoveryCallback | pl.callbacks.Timer)]
    states = {callback.state_key: callback.state_dict() for callback in foreign}
    return {key: state for key, state in states.items() if state}
