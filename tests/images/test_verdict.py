"""The line that describes what a recovery has changed."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dop_lightning import recover_image
from dop_lightning.engine.outcome import Outcome
from dop_lightning.images.verdict import doubt, verdict
from dop_lightning.problems.problem import Problem


def outcome(signal: Tensor, y: Tensor, mask: Tensor | None = None, known: bool = True) -> Outcome:
    corruption = y - signal if mask is None else (y - signal) * mask
    return Outcome(
        problem=Problem("photo", y, mask=mask, seed=0, data_range=1.0),
        status="done",
        iteration=10,
        seconds=1.0,
        tau=1.0,
        alpha=1.0,
        signal=signal,
        corruption=corruption,
        scores={},
        corruption_probability=torch.zeros_like(y) if known else None,
    )


@pytest.fixture
def y() -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_undamaged_image_is_reported(y: Tensor) -> None:
    assert verdict(outcome(y.clone(), y)) == "photo: no corruption was detected; the image is returned unchanged"
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[:, 2] = False
    signal = torch.where(mask, y, 0.5)
    said = verdict(outcome(signal, y, mask))
    assert said == "photo: no corruption was detected; only missing values were filled in"


def test_few_outliers_are_not_reported(y: Tensor) -> None:
    signal = y.clone()
    signal[0, :2] += 0.3
    assert verdict(outcome(signal, y)) is None


def test_removing_dense_noise_changes_all_values(y: Tensor) -> None:
    said = verdict(outcome(y + 0.01, y))
    assert said == "photo: dense noise was removed from all other values; pass --dense keep to leave them unchanged"


def test_nearly_fully_damaged_image_is_questioned(y: Tensor) -> None:
    found = outcome(1 - y, y)
    share = (1 - 2 * y).abs().gt(0.1).float().mean()
    assert share > 0.75
    assert doubt(found) == verdict(found)
    assert str(doubt(found)).startswith(f"photo: {share:.0%} of the values were detected as corrupted. If that is too")
    assert doubt(replace(found, status="interrupted")) is None


def test_no_verdict_before_the_corruption_is_known(y: Tensor) -> None:
    assert verdict(outcome(y.clone(), y, known=False)) is None
    assert verdict(replace(outcome(y.clone(), y), status="interrupted")) is None


def test_python_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((16, 16), 200, dtype=np.uint8)
    settings = {"preset": "quick", "width": 4, "iterations": 2, "device": "cpu", "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recover_image(image, **settings)
    monkeypatch.setattr("dop_lightning.images.restoration.doubt", lambda _: "image: 90% of the values")
    with pytest.warns(RuntimeWarning, match="image: 90% of the values"):
        recover_image(image, **settings)


@pytest.mark.parametrize("dense", ["keep", "remove"])
def test_dense_noise_is_kept_or_removed_as_requested(dense: str) -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(60, 180, 48)[None] + np.zeros((48, 1))
    image = truth + rng.normal(0, 15, truth.shape)
    hit = rng.random(image.shape) < 0.1
    image = np.where(hit, rng.choice([0, 255], image.shape), image).clip(0, 255).astype(np.uint8)
    found = recover_image(image, dense=dense, preset="quick", width=8, iterations=200, device="cpu", progress=False)  # type: ignore[call-overload]
    same = (found.image == image)[~hit].mean()
    assert same > 0.8 if dense == "keep" else same < 0.3


def test_handling_of_dense_noise_is_validated() -> None:
    image = np.zeros((8, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="dense must"):
        recover_image(image, dense="lose", progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dense must be auto with the preset paper"):
        recover_image(image, dense="keep", preset="paper", progress=False)
