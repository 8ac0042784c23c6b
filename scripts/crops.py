"""Full-resolution crops of pictures of scikit-image, for the scripts in this folder."""

import numpy as np
import torch
from torch import Tensor


def crop(name: str, side: int, top: float = 0.5, left: float = 0.5) -> np.ndarray:
    """Cut a square from a picture of scikit-image.

    Args:
        name: name in `skimage.data`.
        side: side of the square in pixels.
        top: vertical position, from 0 (top) to 1 (bottom).
        left: horizontal position, from 0 (left) to 1 (right).

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


def crop_tensor(name: str, side: int, top: float = 0.5, left: float = 0.5) -> Tensor:
    """Return a crop of a picture of scikit-image, `(C, side, side)` in [0, 1]; see :func:`crop`."""
    pixels = torch.from_numpy(crop(name, side, top, left))
    return pixels.view(side, side, -1).permute(2, 0, 1).contiguous() / 255


def middle(name: str, side: int) -> Tensor:
    """Return the center of a picture of scikit-image, `(C, H, W)` in [0, 1], with H and W at most `side`."""
    from skimage import data

    pixels = np.asarray(getattr(data, name)(), dtype=np.float32)
    pixels /= 255 if pixels.max() > 1 else 1
    values = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    top, left = (max(0, length - side) // 2 for length in values.shape[1:])
    return values[:, top : top + side, left : left + side].contiguous()
