"""Images of another size or with other channels, at any depth; missing values do not bleed into their neighbours.

Shapes: H × W pixels, C channels.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image

from dop_lightning.images.formats.raster import Raster, Unsuitable
from dop_lightning.images.formats.repaint import quantised

Channels = Literal["as_is", "grey", "rgb"]

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey, of ITU-R 601."""

_WANTED = {"grey": 1, "rgb": 3}
_SAFE = 1e30
"""Pillow resizes in single precision, where larger values might overflow."""


def with_channels(raster: Raster, channels: Channels) -> Raster:
    """Convert to grey (ITU-R 601 luma) or RGB where needed.

    A palette becomes colours then, a colour key an alpha plane, and fewer than 8 bits become 8. The colour profile is
    left out, since it describes other channels.

    Raises:
        Unsuitable: the image has another number of channels than 1 or 3.
    """
    if channels == "as_is" or raster.channels == _WANTED[channels]:
        return raster
    if raster.channels not in (1, 3):
        raise Unsuitable(f"channels must be as_is for an image of {raster.channels} channels, got {channels!r}")
    missing = None if raster.nodata is None else raster.has_nodata()
    raster = _eight_bits(_expanded(raster))
    samples = raster.samples
    if channels == "rgb":
        samples = np.repeat(samples, 3, axis=2)
    elif samples.dtype == np.uint8:
        samples = np.array(Image.fromarray(np.ascontiguousarray(samples)).convert("L"))[..., None]
    else:
        samples = quantised(samples @ LUMA, raster)[..., None]
        if missing is not None:
            samples[missing.any(axis=2)] = raster.nodata
    return replace(raster, samples=samples, metadata={**raster.metadata, "converted": True})


def resized(raster: Raster, size: tuple[int, int]) -> tuple[Raster, np.ndarray, np.ndarray | None]:
    """Resize by Lanczos.

    8 bits are resized on 8 bits, as Pillow does; other depths, and what has missing values, in single precision, within
    the least and the largest observed value. Missing values have no weight: a value is the weighted sum of the observed
    ones by the sum of their weights, and missing where that is less than a half. A palette becomes colours, a colour
    key an alpha plane.

    Args:
        raster: the image.
        size: the new (H, W).

    Returns:
        The image; its values ``(H, W, C)`` in the units of the file, which are not rounded where they were not
        resized on 8 bits; and which are observed, ``(H, W, C)``, or ``None`` where all are.
    """
    raster = _expanded(raster)
    observed, samples = raster.observed(), raster.samples
    if observed is None and _is_eight_bit(raster):
        values = np.stack([_lanczos(plane, size) for plane in np.moveaxis(samples, 2, 0)], axis=2)
    else:
        values, observed = _weighted(samples, observed, size)
    new = quantised(values, raster)
    if raster.nodata is not None and observed is not None:
        new[~observed] = raster.nodata
    alpha = None
    if raster.alpha is not None:
        alpha = _resized_alpha(raster.alpha, raster, size)
        visible = np.repeat((alpha != 0)[..., None], raster.channels, axis=2)
        observed = visible if observed is None else observed & visible
    return replace(raster, samples=new, alpha=alpha), values, observed


def _expanded(raster: Raster) -> Raster:
    """The same image with colours for a palette, and alpha for a colour key."""
    if raster.palette is not None:
        alphas = raster.palette.alphas
        alpha = None if alphas is None else alphas[raster.samples[..., 0]]
        return replace(raster, samples=raster.colours(), alpha=alpha, palette=None, bits=8)
    if raster.key is None:
        return raster
    alpha = np.where(raster.has_key(), 0, int(raster.limits[1])).astype(raster.samples.dtype)
    # No format has alpha of fewer bits.
    return _eight_bits(replace(raster, alpha=alpha, key=None))


def _eight_bits(raster: Raster) -> Raster:
    """Black and white as 0 and 255, and levels of fewer bits in between."""
    largest = int(raster.limits[1])
    if raster.samples.dtype.kind not in "bu" or largest >= 255:
        return raster

    def scaled(levels: np.ndarray) -> np.ndarray:
        return np.rint(levels.astype(np.float64) * (255 / largest)).astype(np.uint8)

    alpha = None if raster.alpha is None else scaled(raster.alpha)
    return replace(raster, samples=scaled(raster.samples), alpha=alpha, bits=8)


def _is_eight_bit(raster: Raster) -> bool:
    return raster.samples.dtype == np.uint8 and raster.bits == 8


def _lanczos(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 or float32, ``(H, W)``."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.array(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _weighted(
    samples: np.ndarray, observed: np.ndarray | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    values, known = np.zeros((*size, samples.shape[2])), np.ones((*size, samples.shape[2]), dtype=bool)
    for k in range(samples.shape[2]):
        plane = samples[..., k].astype(np.float64)
        here = np.ones(plane.shape, dtype=bool) if observed is None else observed[..., k]
        if not here.any():
            known[..., k] = False
            continue
        low, high = plane[here].min(), plane[here].max()
        scale = max(1.0, abs(low) / _SAFE, abs(high) / _SAFE)
        resized = _lanczos(np.where(here, plane / scale, 0).astype(np.float32), size).astype(np.float64)
        if not here.all():
            weight = _lanczos(here.astype(np.float32), size)
            known[..., k] = weight >= 0.5
            resized = np.where(known[..., k], resized / np.where(known[..., k], weight, 1), low / scale)
        values[..., k] = np.clip(resized * scale, low, high)
    return values, None if known.all() else known


def _resized_alpha(own: np.ndarray, raster: Raster, size: tuple[int, int]) -> np.ndarray:
    """0 where less than half of the weight of ``own`` is visible, and above elsewhere."""
    visible = own != 0
    if _is_eight_bit(raster):
        alpha = _lanczos(own, size)
    else:
        alpha = quantised(_weighted(own[..., None], None, size)[0][..., 0], raster)
    least = own[visible].min() if visible.any() else own.min()
    return np.where(_lanczos(visible.astype(np.float32), size) >= 0.5, np.maximum(alpha, least), 0).astype(alpha.dtype)
