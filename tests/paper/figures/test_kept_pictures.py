"""The pictures that figures show beside the recovered one."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.paper.figures.kept_pictures import KeptPictures

PROBLEM = "camera-salt-and-pepper-0.3-seed0"


def psnr(folder: Path, name: str) -> float:
    one, truth = (np.asarray(Image.open(folder / file), dtype=np.float64) / 255 for file in (name, "truth.png"))
    return float(-10 * np.log10(((one - truth) ** 2).mean()))


def test_best_picture_has_the_best_score(tmp_path: Path, fit, images, image_method) -> None:
    fit(tmp_path, image_method(corruption=None, evaluate_every=10), images(), 120, KeptPictures())
    folder = tmp_path / PROBLEM
    result = json.loads((folder / "result.json").read_text())
    assert psnr(folder, "best.png") == pytest.approx(result["best_psnr"], abs=0.05)
    assert psnr(folder, "observed.png") == pytest.approx(result["input_psnr"], abs=0.05)
    assert result["best_psnr"] >= result["psnr"]


def test_interruption_does_not_change_pictures(tmp_path: Path, fit, images, image_method, stop_at) -> None:
    def settings():
        return image_method(evaluate_every=20, block=10), images()

    fit(tmp_path / "straight", *settings(), 80, KeptPictures())
    fit(tmp_path / "resumed", *settings(), 80, KeptPictures(), stop_at(50))
    fit(tmp_path / "resumed", *settings(), 80, KeptPictures(), resume=True)
    for name in ("truth.png", "observed.png", "best.png"):
        one, two = (tmp_path / run / PROBLEM / name for run in ("straight", "resumed"))
        assert one.read_bytes() == two.read_bytes()


def test_no_best_without_truth(tmp_path: Path, fit, images, image_method) -> None:
    fit(tmp_path, image_method(), images(noise=None), 10, KeptPictures())
    assert (tmp_path / "camera" / "recovered.png").is_file()
    assert not (tmp_path / "camera" / "best.png").exists()
