"""The config of a run, the list of its problems, and who works on them, when all parts have been built."""

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
    """Writes ``config.yaml`` and ``manifest.json``: the folder belongs to this run from then on.

    The folder and the batches of this process are locked until it ends, so that a second start of a run that is still
    at work is refused. If somebody removes or moves the folder meanwhile, this process ends.

    Args:
        request: the settings and problems of this start.
        config_text: the resolved config, YAML.
        fingerprint: of the run at its first start, if this is not the first.
        threads: of the run at its first start; ``None`` if they are unknown or depend on the number of processes.
        seen: :func:`~dop_lightning.runs.manifest.stamps` of the folder before anything of it was read; ``None`` if
            nothing was.
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
        """Lock the folder before this process lets others take part.

        Raises:
            ValueError: another start is at work in the folder.
        """
        self._lock = FolderLock(Path(trainer.default_root_dir))
        if trainer.is_global_zero and trainer.world_size > 1:
            self._lock.require()
            self._begin(Path(trainer.default_root_dir))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After everything that can be wrong with the settings.

        Raises:
            ValueError: another process works on one of the batches.
            TypeError: the module is not :class:`DoubleOverparameterization`.
        """
        run, data = Path(trainer.default_root_dir), data_of(trainer)
        if self._lock is not None:
            self._lock.require(first=trainer.world_size == 1)
            if trainer.world_size == 1:
                self._begin(run)
        self._claims = Claims(run / LOCK)
        labels, own = batch_labels(range(len(data.batches))), set(recovery_module(pl_module).roster.labels)
        if taken := self._claims.take(k for k, label in enumerate(labels) if label in own):
            raise ValueError(
                f"{run}: another process is at work on {labels[taken[0]]} of this run; wait for its end, or end it, "
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

    def _begin(self, run: Path) -> None:
        """Check that nobody has written to the folder before it was held, and remove what killed processes have left.

        Raises:
            ValueError: another start has.
        """
        if self.seen is not None and self.seen != stamps(run):
            raise ValueError(f"{run}: another process was at work in this folder meanwhile; start again")
        if is_held(run / LOCK) is False:  # else a process of another machine is at work
            remove_temporary(run)

    def on_block(self, trainer: pl.Trainer, module: Any, state: State, iterations: int) -> None:
        """Before anything is written: check that the folder is still the one of this run.

        Raises:
            ValueError: it was moved, removed or replaced, or another process works on one of the batches.
        """
        run = trainer.default_root_dir
        if self._lock is not None and not self._lock.is_intact:
            raise ValueError(f"{run}: {MOVED}")
        if self._claims is not None and (taken := self._claims.renew()):
            raise ValueError(
                f"{run}: {LOCK} was removed while this run was at work, and another process works on "
                f"batch-{taken[0]:04d} now; wait for its end, and start again"
            )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Others may go on."""
        if self._claims is not None:
            self._claims.release()
        if self._lock is not None:
            self._lock.release()
