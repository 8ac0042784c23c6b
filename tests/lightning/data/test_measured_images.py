"""Images that are measured before noise comes to them, and files that hold what was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.images.formats import read_image
from dop_lightning.lightning.data import ImageDataModule
from dop_lightning.lightning.data.images import ImageFile
from dop_lightning.model.operators import (
    BoxBlur,
    Downsampling,
    GaussianBlur,
    GaussianMeasurements,
    Masked,
    operator_of,
)
from dop_lightning.problems.noise import MissingEntries, Mixture, NoNoise, SaltAndPepper
from dop_lightning.problems.problem import Problem

HALF = Downsampling(2)


def problems(images: Any, **options: Any) -> list[Problem]:
    data = ImageDataModule(images, **options)
    data.setup()
    return data.problems


def save(path: Path, *shape: int, seed: int = 0) -> str:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


# ----------------------------------------------------------------------------------------------------------- simulated


def test_the_image_is_measured_then_corrupted() -> None:
    (problem,) = problems("camera", noise=SaltAndPepper(0.2), resize=32, sensing=HALF)
    (plain,) = problems("camera", noise=SaltAndPepper(0.2), resize=32)
    assert problem.name == "camera-downsampling-2-bicubic-salt-and-pepper-0.2-seed0"
    assert problem.attributes == {**plain.attributes, "sensing": "downsampling", "factor": 2, "filter": "bicubic"}
    assert (problem.observation.shape, problem.signal_shape) == ((1, 16, 16), (1, 32, 32))
    assert problem.truth is not None
    assert problem.true_corruption is not None
    assert torch.equal(problem.truth, plain.truth)
    torch.testing.assert_close(problem.observation, HALF.measure(problem.truth, 0) + problem.true_corruption)
    hit = problem.true_corruption != 0
    assert 0.1 < float(hit.float().mean()) < 0.3
    assert set(problem.observation[hit].tolist()) == {0.0, 1.0}


def test_sensing_is_an_axis_of_a_study() -> None:
    ways = [GaussianBlur(1), HALF, BoxBlur(3, "valid")]
    found = problems("camera", noise=SaltAndPepper(0.2), resize=16, sensing=ways, seeds=2)
    assert [(problem.sensing, problem.seed) for problem in found] == [(way, seed) for way in ways for seed in (0, 1)]
    assert len({problem.name for problem in found}) == 6
    assert [tuple(problem.observation.shape) for problem in found[::2]] == [(1, 16, 16), (1, 8, 8), (1, 14, 14)]


def test_measurements_may_be_missing() -> None:
    noise = Mixture([SaltAndPepper(0.1), MissingEntries(0.3)])
    data = ImageDataModule("camera", noise=noise, resize=16, sensing=HALF)
    data.setup()
    (batch,) = data.batches
    assert batch.mask is not None
    assert batch.mask.shape == (1, 1, 8, 8)
    assert isinstance(operator_of(batch), Masked)


def test_gaussian_measurements_of_images() -> None:
    (problem,) = problems("camera", noise=SaltAndPepper(0.2), resize=8, sensing=GaussianMeasurements(40))
    assert (problem.observation.shape, problem.signal_shape) == ((40,), (1, 8, 8))


# --------------------------------------------------------------------------------------------------------------- found


def test_file_contains_measurements(tmp_path: Path) -> None:
    file = save(tmp_path / "small.png", 6, 5, 3)
    (problem,) = problems(file, sensing=HALF)
    assert problem.name == "small"
    assert torch.equal(problem.observation, read_image(file).values)
    assert problem.signal_shape == (3, 12, 10)
    assert problem.truth is problem.true_corruption is None
    assert isinstance(problem.source, ImageFile)
    assert problem.source.format_of((3, 12, 10)).size == (12, 10)
    assert problem.source.format_of((3, 6, 5)) is problem.source.format


def test_two_kinds_of_sensing_are_two_problems(tmp_path: Path) -> None:
    file = save(tmp_path / "small.png", 6, 5, 3)
    names = [problem.name for problem in problems(file, sensing=[HALF, Downsampling(3)])]
    assert names == ["small-downsampling-2-bicubic-seed0", "small-downsampling-3-bicubic-seed0"]


def test_valid_blur_recovers_a_larger_image(tmp_path: Path) -> None:
    (problem,) = problems(save(tmp_path / "a.png", 9, 7), sensing=BoxBlur(5, "valid"))
    assert problem.signal_shape == (1, 13, 11)


def test_the_truth_has_the_size_of_the_signal(tmp_path: Path) -> None:
    file, truth = save(tmp_path / "small.png", 6, 5, 3), save(tmp_path / "truth.png", 12, 10, 3, seed=1)
    (problem,) = problems(file, truth=truth, sensing=HALF)
    assert problem.truth is not None
    assert problem.true_corruption is not None
    assert torch.equal(problem.truth, read_image(truth).values)
    torch.testing.assert_close(problem.true_corruption, problem.observation - HALF.measure(problem.truth, 0))
    with pytest.raises(ValueError, match=r"of the signal measured as .*small\.png, 10×12 with 3 channels, got 5×6"):
        problems(file, truth=file, sensing=HALF)
    with pytest.raises(ValueError, match=r"size and channels of .*small\.png, 5×6 with 3 channels, got 10×12"):
        problems(file, truth=truth, sensing=GaussianBlur(1))


def test_mask_applies_to_measurements(tmp_path: Path) -> None:
    file = save(tmp_path / "small.png", 6, 5)
    Image.fromarray(np.eye(6, 5, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    (problem,) = problems(file, mask=str(tmp_path / "mask.png"), sensing=HALF)
    assert problem.mask is not None
    assert torch.equal(problem.mask[0], torch.eye(6, 5, dtype=torch.bool))


def test_transparent_measurements_are_missing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[2, 3, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (problem,) = problems(str(tmp_path / "a.png"), sensing=HALF)
    assert problem.mask is not None
    assert int((~problem.mask).sum()) == 3
    with pytest.raises(ValueError, match="a: a signal must be complete to be measured, got 3 missing"):
        problems(str(tmp_path / "a.png"), sensing=HALF, noise=SaltAndPepper(0.1))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".jpg"])
def test_a_recovered_file_of_another_size_keeps_its_kind(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
    np.save(file, pixels) if suffix == ".npy" else Image.fromarray(pixels).save(file)
    (problem,) = problems(str(file), sensing=HALF)
    assert isinstance(problem.source, ImageFile)
    written = problem.source.format_of(problem.signal_shape)
    assert (written.suffix, written.size) == (".png" if suffix == ".jpg" else suffix, (12, 10))


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 8}, "tile must be null with sensing, which crosses the borders of tiles, got 8"),
        ({"resize": 8}, "resize must be null with sensing and without noise, .*, got 8"),
        ({"crop": 8, "noise": [NoNoise(), SaltAndPepper(0.1)]}, "crop must be null with sensing and without noise"),
        ({"mask": "mask.png", "noise": SaltAndPepper(0.1)}, "mask must be null with sensing and noise"),
        ({"sensing": []}, "sensing must be at least one sensing, or null, got an empty list"),
    ],
)
def test_meaningless_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageDataModule("camera", **{"sensing": HALF, **options})


def test_images_that_cannot_be_measured_are_reported(tmp_path: Path) -> None:
    file = save(tmp_path / "odd.png", 9, 8)
    with pytest.raises(ValueError, match=r"odd: .* multiples of the factor 2, got shape \(1, 9, 8\)"):
        problems(file, noise=SaltAndPepper(0.1), sensing=HALF)
    with pytest.raises(ValueError, match=r"odd: .* requires signals of at least 17×17 pixels"):
        problems(file, noise=SaltAndPepper(0.1), sensing=BoxBlur(33))
    with pytest.raises(ValueError, match=r"odd.*: .* requires signals of at least 17×17 pixels, got shape \(1, 9, 8\)"):
        problems(file, sensing=BoxBlur(33))
    with pytest.raises(ValueError, match="odd: the shape of the signal cannot be inferred from"):
        problems(file, sensing=GaussianMeasurements(72))
