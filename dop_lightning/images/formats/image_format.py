"""Image files in memory: the values, the mask of observed values, and the format for writing."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dop_lightning.images.formats.raster import Raster


@dataclass(frozen=True)
class ImageFormat:
    """Information for writing a tensor as a file.

    Attributes:
        suffix: suffix of the file to write: that of the input, or ``.png`` for lossy formats.
        mode: ``L``, ``RGB``, ``RGBA``, ``P``, ``7 channels``, …, as in :class:`~.raster.Raster`.
        channels: C of the tensor, without alpha.
        size: (H, W) of the tensor, after orientation, resizing and cropping.
        value_range: values of the file that correspond to 0 and 1 in the tensor.
        raster: the original image with its metadata, upright.
    """

    suffix: str
    mode: str
    channels: int
    size: tuple[int, int]
    value_range: tuple[float, float]
    raster: Raster = field(repr=False, compare=False)


class LoadedImage(NamedTuple):
    """An image, scaled for a problem.

    Attributes:
        values: ``(C, H, W)``, float32; (v − lo)/(hi − lo) for each value v of the file, 0 for missing values. In
            [0, 1] except for values outside of the range (lo, hi), which are outliers.
        mask: boolean ``(C, H, W)``, true where observed; ``None`` if all values are observed.
        format: information for :func:`write_image` to write another image in the same format.
    """

    values: Tensor
    mask: Tensor | None
    format: ImageFormat


def flags_to_tensor(flags: np.ndarray) -> Tensor:
    """Convert a mask to a tensor: ``(H, W, C)`` -> ``(C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(flags, 2, 0)))
