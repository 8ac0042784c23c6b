"""Crops of scikit-image's pictures at their own resolution, for the scripts beside this file."""

import numpy as np
import torch
from torch import Tensor


def crop(name: str, side: int, top: float = 0.5, left: float = 0.5) -> np.ndarray:
    """Cut a square out of a picture of scikit-image.

    Args:
        name: in `skimage.data`.
        side: pixels.
        top: place of the square, from 0 (upper end) to 1 (lower end).
        left: the same from left to right.

    Returns:
        uint8, `(side, side)` or `(side, side, C)`.

    Raises:
        SystemExit: the picture is smaller.
    """
    from skimage import data

    pixels = np.asarray(getattr(data, name)())
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if side > min(pixels.shape[:2]):
        raise SystemExit(f"error: crops of {name} must have a side of at most {min(pixels.shape[:2])}, got {side}")
    rows, columns = (int(place * (length - side)) for place, length in zip((top, left), pixels.shape, strict=False))
    return np.ascontiguousarray(pixels[rows : rows + side, columns : columns + side])


def crop_tensor(name: str, side: int) -> Tensor:
    """The middle of a picture of scikit-image, `(C, side, side)` in [0, 1]."""
    pixels = torch.from_numpy(crop(name, side))
    return pixels.view(side, side, -1).permute(2, 0, 1).contiguous() / 255


def middle(name: str, side: int) -> Tensor:
    """Return the middle of a picture of scikit-image, `(C, H, W)` in [0, 1], with H and W at most `side`."""
    from skimage import data

    pixels = np.asarray(getattr(data, name)(), dtype=np.float32)
    pixels /= 255 if pixels.max() > 1 else 1
    values = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    top, left = (max(0, length - side) // 2 for length in values.shape[1:])
    return values[:, top : top + side, left : left + side].contiguous()
