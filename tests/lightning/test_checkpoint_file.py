"""Ordinary checkpoint files: damaged ones are named, those of earlier versions are read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning import DoubleOverparameterization


@pytest.fixture
def file(make_trainer: Any, matrix_method: Any, matrices: Any, tmp_path: Path) -> Path:
    trainer = make_trainer(tmp_path / "run", 100)
    trainer.fit(matrix_method(), datamodule=matrices())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def flip(file: Path) -> None:
    """Flip a bit of a tensor of the state_dict."""
    values = next(iter(torch.load(file, weights_only=True)["state_dict"].values())).numpy().tobytes()
    content = bytearray(file.read_bytes())
    content[content.index(values)] ^= 1
    file.write_bytes(content)


def edit(file: Path, remove: str = "") -> None:
    """Rewrite the file with another parameter, so that its archive is complete."""
    content = torch.load(file, weights_only=True)
    next(iter(content["state_dict"].values())).add_(1)
    content["recovery"].pop(remove, None)
    torch.save(content, file)


def test_flipped_bit_is_detected(file: Path, make_trainer: Any, matrix_method: Any, matrices: Any) -> None:
    flip(file)
    assert torch.load(file, weights_only=True)  # torch does not notice
    with pytest.raises(ValueError, match=r"x\.ckpt: damaged, the checksum of its record .* does not match"):
        DoubleOverparameterization.load_from_checkpoint(file)
    trainer = make_trainer(file.parent / "other", 200)
    with pytest.raises(ValueError, match=r"x\.ckpt: damaged, the checksum of its record .* does not match"):
        trainer.fit(matrix_method(), datamodule=matrices(), ckpt_path=file, weights_only=True)


def test_other_tensors_in_an_intact_archive_are_detected(
    file: Path, make_trainer: Any, matrix_method: Any, matrices: Any
) -> None:
    edit(file)
    with pytest.raises(ValueError, match=r"x\.ckpt: damaged, the checksum of state_dict differs; if you edited"):
        DoubleOverparameterization.load_from_checkpoint(file)
    trainer = make_trainer(file.parent / "other", 200)
    with pytest.raises(ValueError, match="damaged, the checksum of state_dict differs"):
        trainer.fit(matrix_method(), datamodule=matrices(), ckpt_path=file, weights_only=True)
    module = matrix_method()
    with pytest.raises(ValueError, match="checkpoint: damaged, the checksum of state_dict differs"):
        module.on_load_checkpoint(torch.load(file, weights_only=True))


def test_files_without_checksums_are_read(file: Path) -> None:
    edit(file, remove="checksums")
    assert DoubleOverparameterization.load_from_checkpoint(file).iteration == 100


def test_hyperparameters_may_be_replaced(file: Path) -> None:
    assert DoubleOverparameterization.load_from_checkpoint(file, tau=1e-3).hparams["tau"] == 1e-3


def test_a_missing_entry_is_one_line(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    content["recovery"].pop("checksums")
    content["state_dict"].popitem()
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"the checkpoint is incomplete \('"):
        DoubleOverparameterization.load_from_checkpoint(file)
