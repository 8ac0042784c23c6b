"""Undamaged images are returned unchanged, bit for bit and in their number format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dop_lightning import recover_image

SETTINGS: dict[str, Any] = {"preset": "quick", "width": 4, "iterations": 30, "device": "cpu", "precision": "fp32"}


def line_art(side: int = 96) -> np.ndarray:
    """Black lines and a circle on white, of 8 bits."""
    image = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(0)
    for width in (1, 1, 2, 3, 1, 2):
        draw.line([float(at) for at in rng.uniform(0, side, 4)], fill=0, width=width)
    draw.ellipse([20, 20, 70, 70], outline=0, width=2)
    return np.asarray(image)


def page(side: int = 96) -> np.ndarray:
    """Lines of letters, dark grey on light grey."""
    image = Image.new("L", (side, side), 240)
    draw = ImageDraw.Draw(image)
    for row in range(4, side - 10, 12):
        draw.text((4, row), "Nothing is lost 1234", fill=30)
    return np.asarray(image)


def stars(side: int = 96) -> np.ndarray:
    """Points of light, smeared by air and lens, and the noise of a camera."""
    rng = np.random.default_rng(1)
    sky = rng.normal(12, 1.5, (side, side))
    rows, columns = np.mgrid[:side, :side]
    for row, column, light, width in zip(
        rng.uniform(0, side, 40),
        rng.uniform(0, side, 40),
        rng.uniform(40, 240, 40),
        rng.uniform(0.8, 1.4, 40),
        strict=True,
    ):
        sky += light * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    return sky.clip(0, 255).round().astype(np.uint8)


def checkerboard(side: int = 96) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return ((rows // 8 + columns // 8) % 2 * 255).astype(np.uint8)


@pytest.mark.parametrize("make", [line_art, page, checkerboard])
def test_drawing_is_unchanged(make: Any) -> None:
    image = make()
    found = recover_image(image, progress=False, **{**SETTINGS, "iterations": 200})
    assert np.array_equal(found.image, image)
    assert not np.any(found.mask)
    assert not np.any(found.corruption)


def test_undamaged_image_takes_one_iteration() -> None:
    """A tile without damage is not worked on; its neighbour is."""
    image = np.hstack([page(), page()])
    rng = np.random.default_rng(2)
    image[:, 96:][rng.random((96, 96)) < 0.3] = 255
    found = recover_image(page(), progress=False, **{**SETTINGS, "iterations": 100})
    assert found.status == "stable"
    assert found.iterations == 1
    tiles = recover_image(image, progress=False, tile=96, **{**SETTINGS, "iterations": 20})
    assert np.array_equal(tiles.image[:, :40], image[:, :40])


def test_noise_is_unchanged() -> None:
    """It has no outliers, although few of its entries are near the output of a network."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    settings = {**SETTINGS, "width": 8, "iterations": 200}
    found = recover_image(image, progress=False, **settings)
    assert np.array_equal(found.image, image)


def test_stars_are_kept() -> None:
    image = stars()
    found = recover_image(image, progress=False, **{**SETTINGS, "iterations": 200})
    error = np.mean((found.image.astype(float) - image) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 50


@pytest.mark.slow
def test_specks_are_removed_from_a_drawing_and_lines_kept() -> None:
    image = page()
    rng = np.random.default_rng(2)
    hit = rng.random(image.shape) < 0.01
    damaged = np.where(hit, rng.choice([0, 255], image.shape), image).astype(np.uint8)
    found = recover_image(damaged, progress=False, **{**SETTINGS, "width": 8, "iterations": 200})
    before, after = (float(np.mean((each.astype(float) - image) ** 2)) for each in (damaged, found.image))
    assert after < 0.7 * before
    assert np.mean(np.abs(found.image.astype(float) - damaged) > 16) < 0.05


def test_pattern_unknown_to_the_network_is_filled_from_neighbours() -> None:
    """After few iterations, the network has not learnt a checkerboard: neighbours predict better, and squares stay."""
    image = checkerboard()
    rng = np.random.default_rng(2)
    hit = rng.random(image.shape) < 0.02
    damaged = np.where(hit, rng.choice([0, 255], image.shape), image).astype(np.uint8)
    found = recover_image(damaged, progress=False, **{**SETTINGS, "iterations": 200})
    before, after = (float(np.mean((each.astype(float) - image) ** 2)) for each in (damaged, found.image))
    assert after < 0.2 * before
    probability = found.corruption_probability
    assert probability is not None
    assert probability[damaged != image].mean() > 0.9
    assert probability[damaged == image].mean() < 0.05


@pytest.mark.slow
def test_nearly_uniform_image_is_recovered() -> None:
    """Its mean value foretells it nearly as well as a network does, and what is destroyed is still told and filled."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:64, :64]
    waves = 190 + 6 * np.sin(rows / 9) + 4 * np.cos(columns / 5)
    image = np.stack([(waves + 2 * rng.standard_normal(waves.shape)).round() for _ in range(3)], axis=-1).astype(
        np.uint8
    )
    hit = rng.random(image.shape) < 0.4
    damaged = np.where(hit, rng.choice([0, 255], image.shape), image).astype(np.uint8)
    found = recover_image(damaged, progress=False, **{**SETTINGS, "width": 8, "iterations": 300})
    assert np.mean(np.abs(found.image.astype(float) - image)) < 3
    assert np.mean(found.mask) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("kind", ["bool", "uint16", "int32", "float32", "float64"])
def test_samples_are_preserved_to_the_bit(kind: str) -> None:
    image = line_art()
    made = {
        "bool": image > 127,
        "uint16": image.astype(np.uint16) * 200 + 7,
        "int32": image.astype(np.int32) * 1_000_003 - 17,
        "float32": image.astype(np.float32) / 3,
        "float64": image.astype(np.float64) / 7 + 1e-9,
    }[kind]
    found = recover_image(made, progress=False, **SETTINGS)
    assert found.image.dtype == made.dtype
    assert np.array_equal(found.image, made)


def test_tile_borders_leave_clean_values_unchanged() -> None:
    image = line_art()
    found = recover_image(image, progress=False, tile=64, **SETTINGS)
    assert np.array_equal(found.image, image)


def test_numeric_file_is_unchanged(tmp_path: Path) -> None:
    image = line_art().astype(np.float64) / 7
    np.save(tmp_path / "drawing.npy", image)
    found = recover_image(tmp_path / "drawing.npy", progress=False, **SETTINGS)
    found.save(tmp_path / "back.npy")
    assert np.array_equal(np.load(tmp_path / "back.npy"), image)


@pytest.mark.slow
def test_clean_values_of_a_damaged_picture_are_kept(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    image = (30000 + 8000 * np.sin(rows / 9) + 9000 * np.cos(columns / 7)).astype(np.uint16)
    rng = np.random.default_rng(3)
    hit = rng.random(image.shape) < 0.1
    damaged = np.where(hit, rng.choice([0, 65535], image.shape), image).astype(np.uint16)
    found = recover_image(
        damaged, value_range=(0, 65535), progress=False, **{**SETTINGS, "width": 8, "iterations": 300}
    )
    same = found.image == damaged
    assert same[~hit].mean() > 0.99
    assert np.abs(found.image.astype(float) - image).max() < 8000
