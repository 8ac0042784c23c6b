"""A custom LightningCLI with the module and the data modules."""

import json
from pathlib import Path

import pytest
from pytorch_lightning.cli import LightningCLI

from dop_lightning.cli.experiments.lightning_cli import DopCLI
from dop_lightning.lightning.callbacks import STANDARD, IterationProgress, StableOutput
from dop_lightning.lightning.data import MatrixDataModule, RecoveryDataModule
from dop_lightning.lightning.module import DoubleOverparameterization

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:(?s).*(deprecated in v4|JSONARGPARSE_DEPRECATION_WARNINGS)"),
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

ARGUMENTS = [
    "--data=MatrixDataModule",
    "--data.n=12",
    "--data.rank=1",
    "--model.tau=2e-3",
    "--model.evaluate_every=100",
]
TRAINER = ["--trainer.max_steps=200", "--trainer.accelerator=cpu", "--trainer.logger=false"]


def test_a_plain_cli_gets_the_standard_callbacks(tmp_path: Path) -> None:
    made = LightningCLI(
        DoubleOverparameterization,
        RecoveryDataModule,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=False,
        args=[
            "fit",
            *ARGUMENTS,
            *TRAINER,
            f"--trainer.default_root_dir={tmp_path}",
            "--trainer.callbacks+=StableOutput",
        ],
    )
    kinds = [type(callback) for callback in made.trainer.callbacks]  # type: ignore[attr-defined]
    assert set(STANDARD.values()) - set(kinds) == {IterationProgress}  # Lightning has put its own bar there
    assert kinds.count(StableOutput) == 1
    (result,) = tmp_path.glob("*/result.json")
    assert json.loads(result.read_text())["iterations"] == 200
    assert made.model.hparams["tau"] == 2e-3


def test_trainer_in_python_has_no_standard_callbacks(tmp_path: Path, make_trainer) -> None:
    import pytorch_lightning as pl

    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, barebones=True)
    trainer.fit(DoubleOverparameterization(), datamodule=MatrixDataModule(n=6, rank=1))
    assert not any(isinstance(callback, StableOutput) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def test_dop_cli_can_be_subclassed(tmp_path: Path) -> None:
    class Mine(DopCLI):
        def add_arguments_to_parser(self, parser) -> None:
            super().add_arguments_to_parser(parser)
            parser.add_argument("--note", type=str, default="none")
            parser.set_defaults({"model.tau": 5e-3})

    made = Mine(
        DoubleOverparameterization,
        RecoveryDataModule,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        seed_everything_default=False,
        run=False,
        args=["--data=MatrixDataModule", "--note=mine", *TRAINER, f"--trainer.default_root_dir={tmp_path}"],
    )
    made.trainer.fit(made.model, datamodule=made.datamodule)
    assert made.config["note"] == "mine"
    assert made.model.tau == 5e-3
