"""Masks in files of their own: which values of an image are observed."""

from pathlib import Path

import numpy as np
from torch import Tensor

from dop_lightning.images.formats.image_format import LoadedImage, flags_to_tensor
from dop_lightning.images.formats.kinds import read_raster
from dop_lightning.images.formats.raster import Raster
from dop_lightning.images.formats.sizes import by


def read_mask(path: str | Path, like: LoadedImage) -> Tensor:
    """Read which values of an image are observed from a file of its own.

    A value is observed where the mask is above half of its largest value, white on black, so that JPEG will do; alpha
    does not count, and NaN is not observed.

    Args:
        path: an image or array of any kind that :func:`read_image` takes, of the size of the image; with one channel,
            or all channels equal, for whole pixels, or with those of the image.
        like: the image.

    Returns:
        Boolean ``(C, H, W)``, true where observed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, has another size or number of channels, or says that nothing is observed.
    """
    return observed_by(read_raster(path), like, f"{path}")


def observed_by(mask: Raster, like: LoadedImage, name: str) -> Tensor:
    """:func:`read_mask` of a mask that is in memory already; ``name`` is for errors."""
    values = np.nan_to_num(mask.upright().colours().astype(np.float64), nan=0.0)  # (H, W, C)
    if values.shape[:2] != like.format.size:
        raise ValueError(
            f"{name}: the mask must have the size of the image, {by(like.format.size)}, got {by(values.shape[:2])}"
        )
    observed = values > values.max() / 2
    if not observed.any():
        raise ValueError(f"{name}: the mask must be above 0 where the image is observed, got nothing above 0")
    if observed.shape[2] != like.format.channels:
        if (observed != observed[..., :1]).any():
            raise ValueError(
                f"{name}: the mask must have 1 channel, or the {like.format.channels} of the image, got "
                f"{observed.shape[2]} that differ"
            )
        observed = np.repeat(observed[..., :1], like.format.channels, axis=2)
    return flags_to_tensor(observed)
