"""Generate scenes with known masks: drifting light, waving leaves, sensor noise, and moving objects in colour.

    python scripts/synthetic_scenes.py SCENE --frames 300 --size 240 320 --seed 0

writes `SCENE/frames/` and `SCENE/masks/`, one PNG per frame. The background is a photograph of scikit-image, with a
swaying texture of grass on its left side. The light is the product of a slow change of the whole frame and the soft
shadow of a cloud that crosses it. Objects are cut from two other photographs and lit by the same light. The mask of an
object consists of its pixels: objects cast no shadow and have sharp edges.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import data

DAY, DAY_PERIOD = 0.2, 400.0
"""Relative change of the light of the whole frame, and its period in frames."""

CLOUD, CLOUD_LENGTH, CLOUD_EDGE = 0.5, 0.9, 0.15
"""Fraction of the light that the cloud absorbs, its length, and the width of its edge in widths of the frame."""

SWAY, SWAY_PERIOD, GUST_PERIOD = 0.007, 23.7, 131.0
"""Largest displacement of a leaf in widths of the frame, and the periods of the sway and of its amplitude in frames."""

LEAVES = 0.4
"""Fraction of the width that leaves cover."""

READ_NOISE, SHOT_NOISE = 1.5, 0.03
"""The variance of the noise at level x of 255 is `READ_NOISE² + SHOT_NOISE·x`."""

OBJECTS = 5


@dataclass(frozen=True)
class SyntheticScene:
    """A scene and its truth.

    Attributes:
        frames: uint8 `(F, H, W, 3)`.
        backgrounds: the frames without objects and without noise, uint8 `(F, H, W, 3)`.
        masks: true at the pixels of objects, bool `(F, H, W)`.
    """

    frames: np.ndarray
    backgrounds: np.ndarray
    masks: np.ndarray


def make_scene(
    count: int = 300, height: int = 240, width: int = 320, seed: int = 0, light: bool = True, leaves: bool = True
) -> SyntheticScene:
    """Generate a scene.

    Args:
        count: number of frames.
        height: height of a frame in pixels.
        width: width of a frame in pixels.
        seed: seed of clouds, leaves, objects and noise.
        light: whether the light drifts.
        leaves: whether the leaves move.
    """
    rng = np.random.default_rng(seed)
    room = _picture(data.coffee(), height, width)
    tree = _Tree(rng, height, width)
    sky = _Light(rng, height, width)
    objects = [_Object(rng, height, width, count, index) for index in range(OBJECTS)]
    scene = SyntheticScene(
        np.empty((count, height, width, 3), np.uint8),
        np.empty((count, height, width, 3), np.uint8),
        np.zeros((count, height, width), bool),
    )
    for index in range(count):
        background = room.copy()
        background[:, : tree.width] = tree.at(index if leaves else 0)
        frame = background.copy()
        for thing in objects:
            thing.draw(frame, scene.masks[index], index)
        lit = sky.at(index)[:, :, None] if light else 1.0
        frame, background = frame * lit, background * lit
        noise = rng.standard_normal(frame.shape) * np.sqrt(READ_NOISE**2 + SHOT_NOISE * frame)
        scene.frames[index], scene.backgrounds[index] = _levels(frame + noise), _levels(background)
    return scene


class _Tree:
    """A swaying texture; neighbouring leaves move nearly in phase."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.width = round(LEAVES * width)
        shade = _picture(np.repeat(data.grass()[:, :, None], 3, axis=2)[:384, :384], height, height)
        self._texture = shade * np.array([0.55, 0.9, 0.35])
        self._y, self._x = np.mgrid[:height, : self.width].astype(float)
        self._phase = rng.uniform(0, 2 * np.pi) + 1.0 * _smooth(rng, height, self.width, 0.25)
        self._reach = SWAY * width * (1 + 0.3 * _smooth(rng, height, self.width, 0.25))

    def at(self, index: int) -> np.ndarray:
        gust = 0.6 + 0.4 * np.sin(2 * np.pi * index / GUST_PERIOD)
        shift = gust * self._reach * np.sin(2 * np.pi * index / SWAY_PERIOD + self._phase)
        places = [self._y + 0.3 * shift, self._x + shift]
        return np.stack(
            [map_coordinates(self._texture[:, :, c], places, order=1, mode="reflect") for c in range(3)], axis=2
        )


class _Light:
    """Light at each pixel, relative to that of the photograph."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        angle = rng.uniform(-0.6, 0.6)
        y, x = np.mgrid[:height, :width] / width
        self._along = x * np.cos(angle) + y * np.sin(angle)
        self._begin, self._speed = rng.uniform(-0.6, -0.2), rng.uniform(0.9, 1.4) / 200
        self._phase = rng.uniform(0, 2 * np.pi)

    def at(self, index: int) -> np.ndarray:
        day = 1 + DAY * np.sin(2 * np.pi * index / DAY_PERIOD + self._phase)
        front = self._begin + self._speed * index
        inside = [1 / (1 + np.exp((self._along - edge) / (CLOUD_EDGE / 3))) for edge in (front, front - CLOUD_LENGTH)]
        return day * (1 - CLOUD * (inside[0] - inside[1]))


class _Object:
    """An ellipse or a rounded box, textured with a piece of a photograph, that crosses the frame."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, count: int, index: int) -> None:
        source = data.astronaut() if index % 2 else data.chelsea()
        self._tall, self._wide = (round(side * width) for side in rng.uniform((0.1, 0.07), (0.22, 0.16)))
        top = rng.integers(0, source.shape[0] - 100)
        left = rng.integers(0, source.shape[1] - 100)
        self._pixels = _picture(source[top : top + 100, left : left + 100], self._tall, self._wide)
        y, x = np.mgrid[-1 : 1 : self._tall * 1j, -1 : 1 : self._wide * 1j]
        power = 2 if index % 2 else 4
        self._shape = np.abs(x) ** power + np.abs(y) ** power <= 1
        self._speed = rng.uniform(0.004, 0.01) * width * rng.choice([-1, 1])
        self._row = rng.uniform(0.05, 0.95) * (height - self._tall)
        self._bounce = rng.uniform(0, 0.03) * height
        self._start = rng.uniform(0, 1.5) * width
        self._frame = (height, width)

    def draw(self, frame: np.ndarray, mask: np.ndarray, index: int) -> None:
        height, width = self._frame
        left = round((self._start + self._speed * index) % (1.5 * width) - 0.25 * width)
        top = round(self._row + self._bounce * np.sin(index / 5))
        rows = slice(max(0, top), min(height, top + self._tall))
        columns = slice(max(0, left), min(width, left + self._wide))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        own = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        frame[rows, columns][self._shape[own]] = self._pixels[own][self._shape[own]]
        mask[rows, columns] |= self._shape[own]


def _picture(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a resized photograph, float64 `(H, W, 3)`; a fifth of the range is reserved for brighter light."""
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX), float) * 0.8


def _smooth(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Return a smooth random field within [-1, 1] with correlation length `scale` in widths."""
    field = gaussian_filter(rng.standard_normal((height, width)), scale * width, mode="reflect")
    return field / np.abs(field).max()


def _levels(values: np.ndarray) -> np.ndarray:
    return np.round(values).clip(0, 255).astype(np.uint8)


def write_scene(scene: SyntheticScene, folder: Path) -> None:
    """Write the frames and the masks, one PNG per frame."""
    for name, pictures in (("frames", scene.frames), ("masks", scene.masks.astype(np.uint8) * 255)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / name / f"{index + 1:06d}.png", compress_level=1)


def main() -> None:
    """Generate and write one scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--still-light", action="store_true", help="constant light")
    parser.add_argument("--still-leaves", action="store_true", help="leaves that do not move")
    options = parser.parse_args()
    height, width = options.size
    light, leaves = not options.still_light, not options.still_leaves
    scene = make_scene(options.frames, height, width, options.seed, light, leaves)
    write_scene(scene, options.folder)
    print(f"{options.folder}: {options.frames} frames, objects cover {scene.masks.mean():.1%}")


if __name__ == "__main__":
    main()
