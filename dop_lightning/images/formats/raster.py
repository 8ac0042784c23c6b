"""Content of an image file: the samples as stored, and the information to replace them by others.

Shapes: H × W pixels, C channels without transparency, n colours of a palette.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from PIL import Image

SAMPLES_PER_PIXEL_OF_THE_LIMIT = 4
"""Maximum number of samples of an image, in multiples of the maximum number of pixels."""


class Unsuitable(ValueError):
    """A valid file that is not supported. The message gives the reason and a fix; callers add the name of the file."""


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours of an indexed image.

    Attributes:
        colours: ``(n, 3)``, uint8.
        alphas: ``(n,)``, uint8, 0 for invisible; ``None`` if all are opaque.
    """

    colours: np.ndarray
    alphas: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Raster:
    """The content of an image file.

    Attributes:
        suffix: suffix of the format in which the image is written.
        samples: ``(H, W, C)`` in the number format of the file; with a palette, indices ``(H, W, 1)``.
        bits: significant bits per sample; less than those of the number format for 1, 2, 4, 10, 12 or 14 bits.
        alpha: ``(H, W)``, 0 for invisible, in the number format of the samples; ``None`` without an alpha channel.
        palette: see :class:`Palette`.
        key: the transparent colour, C samples, if any.
        nodata: the sample value that marks missing values in their channel, if any.
        orientation: EXIF orientation 1 … 8 of the stored pixels.
        metadata: metadata that is specific to the format, such as profiles, resolution and compression.
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
        """Size (H, W) of the samples."""
        return self.samples.shape[0], self.samples.shape[1]

    @property
    def channels(self) -> int:
        """Number of channels of the colours."""
        return 3 if self.palette is not None else self.samples.shape[2]

    @property
    def mode(self) -> str:
        """``1``, ``L``, ``RGB``, ``P``, or ``7 channels``; with ``A`` if there is an alpha channel."""
        if self.palette is not None:
            return "P"
        if self.samples.dtype.kind == "b" and self.channels == 1:
            return "1"
        name = {1: "L", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return name if self.alpha is None else f"{name}A" if self.channels in (1, 3) else f"{name} and A"

    @property
    def limits(self) -> tuple[float, float]:
        """Minimum and maximum possible value of a sample; (0, 255) for the colours of a palette."""
        dtype = self.samples.dtype
        if self.palette is not None:
            return 0, 255
        if dtype.kind == "f":
            return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
        if dtype.kind == "i":
            return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        return 0, 1 if dtype.kind == "b" else 2**self.bits - 1

    def colours(self) -> np.ndarray:
        """Return the values of the image, ``(H, W, C)``: its samples, or their colours in the palette."""
        if self.palette is None:
            return self.samples
        return self.palette.colours[self.samples[..., 0]]

    def observed(self) -> np.ndarray | None:
        """Return the mask of observed values, ``(H, W, C)``; ``None`` if all are observed.

        Invisible pixels (alpha 0, or the colour key), NaN, and samples equal to ``nodata`` are missing.
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
        """Return the mask of pixels with the transparent colour, ``(H, W)``."""
        return (self.samples == np.array(self.key)).all(axis=2)

    def has_nodata(self) -> np.ndarray:
        """Return the mask of samples equal to ``nodata``, ``(H, W, C)``."""
        if self.nodata is None:
            return np.zeros(self.samples.shape, dtype=bool)
        # Compare in the number format of the samples: the tag has 1e+20, but float32 has 1.00000002e+20.
        with np.errstate(over="ignore"):
            nodata = np.float64(self.nodata).astype(self.samples.dtype) if self._can_hold(self.nodata) else np.nan
        return np.asarray(self.samples == nodata)

    def _can_hold(self, value: float) -> bool:
        low, high = self.limits
        return self.samples.dtype.kind == "f" or (low <= value <= high and value == round(value))

    def upright(self) -> Self:
        """Return the image with upright pixels; ``orientation`` is still that of the stored pixels."""
        return self._apply_turn(turned_upright)

    def as_stored(self) -> Self:
        """Undo :meth:`upright`."""
        return self._apply_turn(turned_as_stored)

    def _apply_turn(self, turn: Any) -> Self:
        alpha = None if self.alpha is None else turn(self.alpha, self.orientation)
        return replace(self, samples=turn(self.samples, self.orientation), alpha=alpha)


def turned_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the EXIF orientation, 1 … 8, to stored pixels ``(H, W, …)``."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return _flip_orientation(pixels, orientation)


def turned_as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo :func:`turned_upright`."""
    pixels = _flip_orientation(pixels, orientation)
    return pixels.swapaxes(0, 1) if orientation >= 5 else pixels


def _flip_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def upright_shape(channels: int, height: int, width: int, orientation: int) -> tuple[int, int, int]:
    """Return (C, H, W) of the upright image, given its stored size."""
    return (channels, width, height) if orientation >= 5 else (channels, height, width)


def check_size(channels: int, height: int, width: int) -> None:
    """Check that an image has pixels and is not too large to be decoded safely.

    Raises:
        Unsuitable: the image has no pixels, more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, or more than four times as
            many samples.
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
            f"{height}×{width} (height × width); make it smaller first, or use fewer channels"
        )
