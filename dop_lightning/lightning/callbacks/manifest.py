"""Write config and manifest of a run, and lock its folder and batches, after all parts have been built."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.roster import batch_labels
from dop_lightning.engine.state import State
from dop_lightning.foundation.atomic import remove_temporary
from dop_lightning.foundation.folder_lock import MOVED, FolderLock
from dop_lightning.lightning.data.base import data_of
from dop_lightning.lightning.module import recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs.folder import LOCK
from dop_lightning.runs.locks import Claims, is_held
from dop_lightning.runs.manifest import stamps, write_manifest
from dop_lightning.runs.request import RunRequest


class Manifest(RecoveryCallback):
    """Write ``config.yaml`` and ``manifest.json``, which reserve the folder for this run.

    The folder and the batches of this process are locked until it ends, so that a second start of an active run is
    refused. If the folder is removed or moved in the meantime, this process ends.

    Args:
        request: settings and problems of this start.
        config_text: resolved config, as YAML.
        fingerprint: fingerprint of the run at its first start, if this is a later one.
        threads: threads per process at the first start; ``None`` if unknown or dependent on the number of processes.
        seen: :func:`~dop_lightning.runs.manifest.stamps` of the folder before anything was read from it; ``None`` if
            nothing was read.
    """

    def __init__(
        self,
        request: RunRequest,
        config_text: str,
        fingerprint: str = "",
        threads: int | None = None,
        seen: Mapping[Path, tuple[int, int]] | None = None,
    ) -> None:
        self.request = request
        self.config_text = config_text
        self.fingerprint = fingerprint
        self.threads = threads
        self.seen = seen
        self._claims: Claims | None = None
        self._lock: FolderLock | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lock the folder before this process starts others.

        Raises:
            ValueError: another start is active in the folder.
        """
        self._lock = FolderLock(Path(trainer.default_root_dir))
        if trainer.is_global_zero and trainer.world_size > 1:
            self._lock.require()
            self._prepare_folder(Path(trainer.default_root_dir))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lock the batches and write the files, after all settings have been checked.

        Raises:
            ValueError: another process works on one of the batches.
            TypeError: the module is not :class:`DoubleOverparameterization`.
        """
        run, data = Path(trainer.default_root_dir), data_of(trainer)
        if self._lock is not None:
            self._lock.require(first=trainer.world_size == 1)
            if trainer.world_size == 1:
                self._prepare_folder(run)
        self._claims = Claims(run / LOCK)
        labels, own = batch_labels(range(len(data.batches))), set(recovery_module(pl_module).roster.labels)
        if taken := self._claims.take(k for k, label in enumerate(labels) if label in own):
            raise ValueError(
                f"{run}: another process is working on {labels[taken[0]]} of this run; wait for it to end, or stop it, "
                "and start again"
            )
        batches = [batch.names for batch in data.batches]
        write_manifest(
            run,
            self.request,
            self.config_text,
            data.wholes,
            data.mosaics,
            batches,
            fingerprint=self.fingerprint,
            threads=self.threads,
        )

    def _prepare_folder(self, run: Path) -> None:
        """Check that the folder was not changed before it was locked, and remove temporary files of killed processes.

        Raises:
            ValueError: another start has changed the folder.
        """
        if self.seen is not None and self.seen != stamps(run):
            raise ValueError(f"{run}: another process used this folder in the meantime; start again")
        if is_held(run / LOCK) is False:  # otherwise, a process on another machine is active
            remove_temporary(run)

    def on_block(self, trainer: pl.Trainer, module: Any, state: State, iterations: int) -> None:
        """Check, before anything is written, that the folder still belongs to this run.

        Raises:
            ValueError: the folder was moved, removed or replaced, or another process works on one of the batches.
        """
        run = trainer.default_root_dir
        if self._lock is not None and not self._lock.is_intact:
            raise ValueError(f"{run}: {MOVED}")
        if self._claims is not None and (taken := self._claims.renew()):
            raise ValueError(
                f"{run}: {LOCK} was removed during the run, and another process is working on batch-{taken[0]:04d} "
                "now; wait for it to end, and start again"
            )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Release the locks."""
        if self._claims is not None:
            self._claims.release()
        if self._lock is not None:
            self._lock.release()
