"""What becomes of an image file in memory: its values, what is missing of them, and how it becomes a file again."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dop_lightning.images.formats.raster import Raster


@dataclass(frozen=True)
class ImageFormat:
    """What a tensor needs to become a file again.

    Attributes:
        suffix: of the file to write: that of the input's kind, and ``.png`` for what loses with each compression.
        mode: ``L``, ``RGB``, ``RGBA``, ``P``, ``7 channels``, …; as of :class:`~.raster.Raster`.
        channels: C of the tensor; alpha is none.
        size: (H, W) of the tensor: after orientation, resizing and cropping.
        value_range: the values of the file that are 0 and 1 in the tensor.
        raster: all else that the file held, upright.
    """

    suffix: str
    mode: str
    channels: int
    size: tuple[int, int]
    value_range: tuple[float, float]
    raster: Raster = field(repr=False, compare=False)


class LoadedImage(NamedTuple):
    """An image as a problem takes it.

    Attributes:
        values: ``(C, H, W)``, float32; (v − lo)/(hi − lo) of each value v of the file, and 0 where it is missing.
            In [0, 1] but for values beyond the range (lo, hi), which are outliers.
        mask: boolean ``(C, H, W)``, true where observed; ``None`` where all of it is.
        format: what :func:`write_image` needs to write another image as this one was.
    """

    values: Tensor
    mask: Tensor | None
    format: ImageFormat


def flags_to_tensor(flags: np.ndarray) -> Tensor:
    """A mask as a tensor: ``(H, W, C)`` -> ``(C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(flags, 2, 0)))
