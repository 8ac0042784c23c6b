"""The config of a run and the list of its problems, saved when all parts have been built."""

from pathlib import Path

import pytorch_lightning as pl

from dop_lightning.data.base import data_of
from dop_lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs import write_manifest


class Manifest(RecoveryCallback):
    """Writes ``config.yaml`` and ``manifest.json``: the folder belongs to this run from then on.

    Args:
        mark: the fingerprint of the run.
        config_text: the resolved config, YAML.
    """

    def __init__(self, mark: str, config_text: str) -> None:
        self.mark = mark
        self.config_text = config_text

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After everything that can be wrong with the settings."""
        data = data_of(trainer)
        write_manifest(Path(trainer.default_root_dir), self.mark, self.config_text, data.wholes, data.mosaics)
