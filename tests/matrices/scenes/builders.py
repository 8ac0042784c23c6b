"""A small synthetic scene: a lamp that is switched on and off, and a bright block that moves."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from dop_lightning.images.formats import write_pixels
from dop_lightning.matrices.scenes import VideoWriter

HEIGHT, WIDTH, COUNT = 20, 32, 60


def scene(colour: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Frames and their backgrounds, ``(F, H, W[, 3])``, uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    still = np.stack([40 + 3 * x, 60 + 4 * y, 150 - 2 * x], axis=2).astype(float)
    lamp = 60 * np.exp(-((x - 8) ** 2 + (y - 6) ** 2) / 300)[:, :, None]
    backgrounds = np.stack([still + lamp * (index // 5 % 2) for index in range(COUNT)])
    frames = backgrounds.copy()
    for index in range(COUNT):
        frames[index, 8:13, index // 2 : index // 2 + 3] = (250, 10, 10)
    pair = [np.round(values).astype(np.uint8) for values in (frames, backgrounds)]
    frames, backgrounds = pair if colour else [values[..., 0] for values in pair]
    return frames, backgrounds


def write_video(path: Path, frames: np.ndarray) -> Path:
    with VideoWriter(path, Fraction(10)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_folder(path: Path, frames: np.ndarray, name: str = "frame{}.png") -> Path:
    for index, frame in enumerate(frames):
        write_pixels(path / name.format(index), frame)
    return path
