"""Masks of observed values in separate files."""

from pathlib import Path

import numpy as np
from torch import Tensor

from dop_lightning.images.formats.image_format import LoadedImage, flags_to_tensor
from dop_lightning.images.formats.kinds import read_raster
from dop_lightning.images.formats.raster import Raster
from dop_lightning.images.formats.sizes import by


def read_mask(path: str | Path, like: LoadedImage) -> Tensor:
    """Read a mask of the observed values of an image.

    A value is observed if the mask is above half of its maximum (white on black), so that JPEG is accurate enough.
    Alpha is ignored, and NaN means missing.

    Args:
        path: an image or array of any format that :func:`read_image` supports, of the size of the image. Masks with one
            channel, or with equal channels, apply to whole pixels; other masks have the channels of the image.
        like: the image.

    Returns:
        Boolean ``(C, H, W)``, true where observed.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read, has the wrong size or number of channels, or no observed value.
    """
    return observed_by(read_raster(path), like, f"{path}")


def observed_by(mask: Raster, like: LoadedImage, name: str) -> Tensor:
    """Do what :func:`read_mask` does for a mask in memory; ``name`` is used in errors."""
    values = np.nan_to_num(mask.upright().colours().astype(np.float64), nan=0.0)  # (H, W, C)
    if values.shape[:2] != like.format.size:
        raise ValueError(
            f"{name}: the mask must have the size of the image, {by(like.format.size)}, got {by(values.shape[:2])}"
        )
    observed = values > values.max() / 2
    if not observed.any():
        raise ValueError(f"{name}: the mask must be above 0 where the image is observed, got no value above 0")
    if observed.shape[2] != like.format.channels:
        if (observed != observed[..., :1]).any():
            raise ValueError(
                f"{name}: the mask must have 1 channel, or {like.format.channels} like the image, got "
                f"{observed.shape[2]} different ones"
            )
        observed = np.repeat(observed[..., :1], like.format.channels, axis=2)
    return flags_to_tensor(observed)
