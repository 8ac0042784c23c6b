"""Sample data of the plugin: bundled photographs with some values replaced by 0 or 255."""

from typing import Any

import numpy as np
from PIL import Image

from dop_lightning.images.formats.samples import sample_folder

CORRUPTED_FRACTION = 0.2
"""Fraction of the values that are replaced."""

LayerData = tuple[np.ndarray, dict[str, Any], str]
"""Layer data tuple of napari: data, arguments and type of the layer."""


def photograph() -> list[LayerData]:
    """Return an RGB photograph, uint8 ``(192, 192, 3)``."""
    return [(_corrupted(_sample("coffee", 192)), {"name": "photograph", "rgb": True}, "image")]


def stack() -> list[LayerData]:
    """Return a stack of three grey photographs, uint8 ``(3, 96, 96)``."""
    grey = [_sample(name, 96).mean(axis=2).round().astype(np.uint8) for name in ("astronaut", "coffee", "rocket")]
    return [(_corrupted(np.stack(grey)), {"name": "stack"}, "image")]


def _sample(name: str, side: int) -> np.ndarray:
    with Image.open(sample_folder() / f"{name}.png") as image:
        return np.asarray(image.convert("RGB").resize((side, side)))


def _corrupted(clean: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.where(
        random.random(clean.shape) < CORRUPTED_FRACTION, random.choice([0, 255], clean.shape), clean
    ).astype(np.uint8)
