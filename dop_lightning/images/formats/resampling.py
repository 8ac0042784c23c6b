"""Resize images and convert their channels, at any depth. Missing values do not bleed into their neighbours.

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
"""Weights of red, green and blue in grey, from ITU-R 601."""

_WANTED = {"grey": 1, "rgb": 3}
_SAFE = 1e30
"""Larger values are scaled down before resizing, because Pillow uses single precision, which might overflow."""


def with_channels(raster: Raster, channels: Channels) -> Raster:
    """Convert to grey (ITU-R 601 luma) or RGB if necessary.

    The conversion resolves a palette, replaces a transparent colour by an alpha channel, and scales fewer than 8 bits
    to 8. The colour profile is omitted, since it does not apply to the new channels.

    Raises:
        Unsuitable: the image does not have 1 or 3 channels.
    """
    if channels == "as_is" or raster.channels == _WANTED[channels]:
        return raster
    if raster.channels not in (1, 3):
        raise Unsuitable(f"channels must be as_is for an image of {raster.channels} channels, got {channels!r}")
    missing = None if raster.nodata is None else raster.has_nodata()
    raster = _to_eight_bits(_expand(raster))
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
    """Resize with a Lanczos filter.

    8-bit images are resized in 8 bits, as by Pillow. Other depths, and images with missing values, are resized in
    single precision and clipped to the minimum and maximum observed value. Missing values have no weight: a value is
    the weighted mean of observed ones, and missing if their weights sum to less than one half. A palette is resolved,
    and a transparent colour replaced by an alpha channel.

    Args:
        raster: the image.
        size: the new (H, W).

    Returns:
        The image; its values ``(H, W, C)`` in the units of the file, rounded only if they were resized in 8 bits; and
        the mask of observed values ``(H, W, C)``, or ``None`` if all are observed.
    """
    raster = _expand(raster)
    observed, samples = raster.observed(), raster.samples
    if observed is None and _is_eight_bit(raster):
        values = np.stack([_lanczos(plane, size) for plane in np.moveaxis(samples, 2, 0)], axis=2)
    else:
        values, observed = _resize_weighted(samples, observed, size)
    new = quantised(values, raster)
    if raster.nodata is not None and observed is not None:
        new[~observed] = raster.nodata
    alpha = None
    if raster.alpha is not None:
        alpha = _resized_alpha(raster.alpha, raster, size)
        visible = np.repeat((alpha != 0)[..., None], raster.channels, axis=2)
        observed = visible if observed is None else observed & visible
    return replace(raster, samples=new, alpha=alpha), values, observed


def _expand(raster: Raster) -> Raster:
    """Resolve the palette, and replace the transparent colour by an alpha channel."""
    if raster.palette is not None:
        alphas = raster.palette.alphas
        alpha = None if alphas is None else alphas[raster.samples[..., 0]]
        return replace(raster, samples=raster.colours(), alpha=alpha, palette=None, bits=8)
    if raster.key is None:
        return raster
    alpha = np.where(raster.has_key(), 0, int(raster.limits[1])).astype(raster.samples.dtype)
    # No format supports alpha with fewer than 8 bits.
    return _to_eight_bits(replace(raster, alpha=alpha, key=None))


def _to_eight_bits(raster: Raster) -> Raster:
    """Scale samples of fewer than 8 bits to 0 … 255."""
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
    """Resize a uint8 or float32 plane ``(H, W)``."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.array(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _resize_weighted(
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
    """Resize alpha: 0 if less than half of the weight is visible, otherwise positive."""
    visible = own != 0
    if _is_eight_bit(raster):
        alpha = _lanczos(own, size)
    else:
        alpha = quantised(_resize_weighted(own[..., None], None, size)[0][..., 0], raster)
    least = own[visible].min() if visible.any() else own.min()
    return np.where(_lanczos(visible.astype(np.float32), size) >= 0.5, np.maximum(alpha, least), 0).astype(alpha.dtype)
