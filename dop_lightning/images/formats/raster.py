"""What an image file holds: its samples as they are stored, and all that is needed to store others in their place.

Shapes: H × W pixels, C channels without transparency, n colours of a palette.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from PIL import Image

SAMPLES_PER_PIXEL_OF_THE_LIMIT = 4
"""An image may hold this many times the samples of the largest grey image, whatever its number of channels."""


class Unsuitable(ValueError):
    """A file that is whole and cannot be taken. Its text says why and what to do; whoever knows the file names it."""


@dataclass(frozen=True, eq=False)
class Palette:
    """The colours that indices stand for.

    Attributes:
        colours: ``(n, 3)``, uint8.
        alphas: ``(n,)``, uint8, 0 for invisible; ``None`` where all are opaque.
    """

    colours: np.ndarray
    alphas: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Raster:
    """The content of an image file.

    Attributes:
        suffix: of the kind of file that it is written as.
        samples: ``(H, W, C)`` in the number format of the file; with a palette, indices ``(H, W, 1)``.
        bits: of each sample that count; fewer than the number format has for 1, 2, 4, 10, 12 or 14 bits.
        alpha: ``(H, W)``, 0 for invisible, in the number format of the samples; ``None`` where there is none.
        palette: see :class:`Palette`.
        key: the colour of C samples that stands for invisible.
        nodata: the sample that stands for a missing one, in its channel alone.
        orientation: 1 … 8, the EXIF tag: how the stored pixels have to be turned to stand upright.
        metadata: what only the kind of file knows of, such as profiles, resolution and compression.
    """

    suffix: str
    samples: np.ndarray
    bits: int = 8
    alpha: np.ndarray | None = None
    palette: Palette | None = None
    key: tuple[int, ...] | None = None
    nodata: float | None = None
    orientation: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.samples.shape[0], self.samples.shape[1]

    @property
    def channels(self) -> int:
        """C of the colours."""
        return 3 if self.palette is not None else self.samples.shape[2]

    @property
    def mode(self) -> str:
        """``1``, ``L``, ``RGB``, ``P``, or ``7 channels``; with ``A`` where there is an alpha plane."""
        if self.palette is not None:
            return "P"
        if self.samples.dtype.kind == "b" and self.channels == 1:
            return "1"
        name = {1: "L", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return name if self.alpha is None else f"{name}A" if self.channels in (1, 3) else f"{name} and A"

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest value that a sample can have; (0, 255) for the colours of a palette."""
        dtype = self.samples.dtype
        if self.palette is not None:
            return 0, 255
        if dtype.kind == "f":
            return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
        if dtype.kind == "i":
            return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        return 0, 1 if dtype.kind == "b" else 2**self.bits - 1

    def colours(self) -> np.ndarray:
        """The values of the image, ``(H, W, C)``: its samples, or what they stand for in the palette."""
        if self.palette is None:
            return self.samples
        return self.palette.colours[self.samples[..., 0]]

    def observed(self) -> np.ndarray | None:
        """Which values are there, ``(H, W, C)``; ``None`` where all are.

        Missing are pixels that are invisible (alpha 0, or the colour key), NaN, and what equals ``nodata``.
        """
        visible = np.ones((*self.size, self.channels), dtype=bool)
        if self.alpha is not None:
            visible &= (self.alpha != 0)[..., None]
        if self.palette is not None and self.palette.alphas is not None:
            visible &= (self.palette.alphas[self.samples[..., 0]] != 0)[..., None]
        if self.key is not None:
            visible &= ~self.has_key()[..., None]
        if self.samples.dtype.kind == "f" and self.palette is None:
            visible &= ~np.isnan(self.samples)
        visible &= ~self.has_nodata()
        return None if visible.all() else visible

    def has_key(self) -> np.ndarray:
        """Which pixels have the colour of the key, ``(H, W)``."""
        return (self.samples == np.array(self.key)).all(axis=2)

    def has_nodata(self) -> np.ndarray:
        """Which samples are declared missing by their value, ``(H, W, C)``."""
        if self.nodata is None:
            return np.zeros(self.samples.shape, dtype=bool)
        # In the number format of the samples: the text of a file says 1e+20 where float32 has 1.00000002e+20.
        with np.errstate(over="ignore"):
            nodata = np.float64(self.nodata).astype(self.samples.dtype) if self._can_hold(self.nodata) else np.nan
        return np.asarray(self.samples == nodata)

    def _can_hold(self, value: float) -> bool:
        low, high = self.limits
        return self.samples.dtype.kind == "f" or (low <= value <= high and value == round(value))

    def upright(self) -> Self:
        """The same image with its pixels turned upright; ``orientation`` still tells how they were stored."""
        return self._turned(turned_upright)

    def as_stored(self) -> Self:
        """What :meth:`upright` was given."""
        return self._turned(turned_as_stored)

    def _turned(self, turn: Any) -> Self:
        alpha = None if self.alpha is None else turn(self.alpha, self.orientation)
        return replace(self, samples=turn(self.samples, self.orientation), alpha=alpha)


def turned_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels ``(H, W, …)`` by their EXIF orientation, 1 … 8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return _flipped(pixels, orientation)


def turned_as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo :func:`turned_upright`."""
    pixels = _flipped(pixels, orientation)
    return pixels.swapaxes(0, 1) if orientation >= 5 else pixels


def _flipped(pixels: np.ndarray, orientation: int) -> np.ndarray:
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def upright_shape(channels: int, height: int, width: int, orientation: int) -> tuple[int, int, int]:
    """(C, H, W) of an upright image, of the size that it is stored in."""
    return (channels, width, height) if orientation >= 5 else (channels, height, width)


def check_size(channels: int, height: int, width: int) -> None:
    """Refuse images without pixels, and those that are too large to be decoded without care.

    Raises:
        Unsuitable: there is no pixel, or there are more than ``PIL.Image.MAX_IMAGE_PIXELS`` (or four samples for each
            of so many).
    """
    if min(channels, height, width) < 1:
        raise Unsuitable(
            f"an image must have at least one pixel, got {height}×{width} (height × width) of {channels} channels"
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None:
        return
    if height * width > limit:
        raise Unsuitable(
            f"an image must have at most {limit} pixels, got {height}×{width} (height × width); make it smaller first"
        )
    if channels * height * width > SAMPLES_PER_PIXEL_OF_THE_LIMIT * limit:
        raise Unsuitable(
            f"an image must have at most {SAMPLES_PER_PIXEL_OF_THE_LIMIT * limit} samples, got {channels} channels of "
            f"{height}×{width} (height × width); make it smaller first, or take fewer channels"
        )
