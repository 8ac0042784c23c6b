"""Structured damage is filled in, and nothing else is changed by looking for it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from dop_lightning import recover_image
from dop_lightning.images.formats import find_images

SETTINGS: dict[str, Any] = {"preset": "quick", "width": 4, "device": "cpu", "precision": "fp32", "progress": False}


def photograph(side: int = 64) -> np.ndarray:
    return np.asarray(Image.open(find_images(["astronaut"])[0]))[20 : 20 + side, 30 : 30 + side].copy()


def test_dead_lines_are_filled_and_the_rest_is_unchanged() -> None:
    image = photograph()
    damaged = image.copy()
    damaged[30], damaged[:, 40] = 255, 90
    dead = np.zeros(image.shape, dtype=bool)
    dead[30], dead[:, 40] = True, True
    found = recover_image(damaged, iterations=150, **SETTINGS)
    assert np.array_equal(found.image[~dead], image[~dead])
    assert np.mean(np.abs(found.image[dead].astype(float) - damaged[dead]) > 8) > 0.8
    assert np.asarray(found.mask)[dead].mean() > 0.8
    left = recover_image(damaged, iterations=150, damage="points", **SETTINGS)
    assert np.mean((found.image.astype(float) - image) ** 2) < 0.5 * np.mean((left.image.astype(float) - image) ** 2)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_without_lines_every_option_gives_the_same_bits(share: float) -> None:
    image = photograph()
    rng = np.random.default_rng(0)
    image[rng.random(image.shape) < share] = 255
    one, other = (recover_image(image, iterations=50, damage=damage, **SETTINGS) for damage in ("auto", "points"))
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.corruption, other.corruption)
