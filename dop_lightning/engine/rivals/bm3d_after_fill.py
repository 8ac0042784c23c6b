"""BM3D applied to the result of another filter."""

from importlib import import_module
from typing import Any

import numpy as np

from dop_lightning.engine.rivals.base import Flags, Image, ImageFilter
from dop_lightning.engine.rivals.detectors import MAD_TO_STANDARD_DEVIATION
from dop_lightning.foundation.checks import not_negative
from dop_lightning.foundation.signatures import require_part


class BM3DAfterFill(ImageFilter):
    """Remove dense noise with BM3D after filling the outliers.

    Dabov, Foi, Katkovnik, Egiazarian, *Image denoising by sparse 3-D transform-domain collaborative filtering*, IEEE
    Trans. Image Processing 16, 2007. Uses the package ``bm3d``, which is not part of the extra ``rivals`` because its
    licence only allows non-commercial use.

    Args:
        fill: filter that fills the outliers.
        sigma: standard deviation of the dense noise in units of the range, at least 0; 0 skips BM3D. ``None`` estimates
            it from the entries that ``fill`` has kept, see :func:`noise_of_known`.

    Raises:
        ValueError: ``fill`` is not an ``ImageFilter``, or ``sigma`` is out of range.
        ImportError: bm3d is required and not installed.
    """

    def __init__(self, fill: ImageFilter, sigma: float | None = None) -> None:
        require_part("fill", fill, ImageFilter)
        self.fill = fill
        self.sigma = None if sigma is None else not_negative("sigma", sigma)
        if self.sigma != 0:
            _bm3d()

    def restore(self, image: Image, missing: Flags) -> Image:
        """Return the denoised image. The channels of three-channel images are denoised together."""
        filled = self.fill.restore(image, missing)
        kept = ~missing & (filled == image)
        sigma = noise_of_known(image, kept) if self.sigma is None else self.sigma
        if sigma == 0:
            return filled
        bm3d = _bm3d()
        if len(filled) == 3:
            denoised = np.moveaxis(bm3d.bm3d_rgb(np.moveaxis(filled, 0, -1), sigma), -1, 0)
        else:
            denoised = np.stack([bm3d.bm3d(channel, sigma).reshape(channel.shape) for channel in filled])
        return np.clip(denoised, 0.0, 1.0)

    @property
    def name(self) -> str:
        """Name of ``fill``, followed by BM3D."""
        return f"{self.fill.name} BM3D"


def noise_of_known(image: Image, known: Flags) -> float:
    """Estimate the standard deviation of dense noise from second differences of known neighbours.

    For three consecutive known entries, ``(a − 2b + c)/√6`` has the variance of the noise if the image is smooth. The
    result is 1.4826 times the median of its absolute value. Texture leads to an overestimate.

    Args:
        image: ``(C, H, W)``.
        known: ``(C, H, W)``.

    Returns:
        σ, at least 0; 0 if there are no three consecutive known entries.
    """
    found = []
    for values, flags in ((image, known), (image.swapaxes(1, 2), known.swapaxes(1, 2))):
        three = flags[..., :-2] & flags[..., 1:-1] & flags[..., 2:]
        second = (values[..., :-2] - 2 * values[..., 1:-1] + values[..., 2:]) / np.sqrt(6)
        found.append(np.abs(second[three]))
    sizes = np.concatenate(found)
    return float(MAD_TO_STANDARD_DEVIATION * np.median(sizes)) if sizes.size else 0.0


def _bm3d() -> Any:
    try:
        return import_module("bm3d")
    except ModuleNotFoundError as error:
        raise ImportError("BM3DAfterFill requires bm3d (non-commercial use only): pip install bm3d") from error
