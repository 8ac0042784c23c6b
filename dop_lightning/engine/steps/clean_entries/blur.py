"""Separable Gaussian blur, on a CPU by ``foundation/native/filters.cpp`` if a compiler is available.

Shapes: C×H×W, an image.
"""

import math
from ctypes import c_int, c_int64, c_void_p
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from dop_lightning.engine.steps.clean_entries.compiled import kernels_for

Border = Literal["reflect", "replicate"]
"""Padding mode: mirror the image, or repeat its border pixels."""


def gaussian(reach: int, scale: float, like: Tensor) -> Tensor:
    """Return the weights ``exp(−d²/2σ²)`` at the distances ``d = −reach … reach``, normalised to sum to 1."""
    steps = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    line = torch.exp(-steps.square() / (2 * scale**2))
    return line / line.sum()


def blur(image: Tensor, line: Tensor, border: Border) -> Tensor:
    """Convolve each channel with the same 1-D kernel along columns, then along rows.

    Args:
        image: ``(C, H, W)``.
        line: the kernel, of odd length.
        border: padding mode. ``reflect`` mirrors repeatedly if the kernel extends beyond the mirrored image.
    """
    reach = len(line) // 2
    result = image[:, None]
    for axis, sides in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        around = _pad_reflect(result, sides) if border == "reflect" else pad(result, sides, mode="replicate")
        result = _convolve(around, line, axis)
    return result[:, 0]


def _convolve(around: Tensor, line: Tensor, axis: int) -> Tensor:
    """Convolve ``(C, 1, H, W)`` along one axis."""
    if around.device.type != "cpu":
        return conv2d(around, line.view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)))
    length = around.shape[axis] - len(line) + 1
    needed = around.narrow(axis, 0, length)
    if (kernels := kernels_for(around, line)) is not None:
        around, line, result = around.contiguous(), line.contiguous(), around.new_empty(needed.shape)
        kernels.convolve_line(
            c_void_p(around.data_ptr()),
            c_void_p(result.data_ptr()),
            c_void_p(line.data_ptr()),
            c_int(len(line)),
            *(c_int64(size) for size in (result.shape[0], *result.shape[2:])),
            c_int(axis == 2),
            c_int(torch.get_num_threads()),
        )
        return result
    result = torch.zeros_like(needed, memory_format=torch.contiguous_format)
    for number, weight in enumerate(line.tolist()):  # conv2d is about nine times slower on one thread
        result.add_(around.narrow(axis, number, length), alpha=weight)
    return result


def local_mean(y: Tensor, places: Tensor, scale: float) -> Tensor:
    """Return the local mean of ``y`` over the selected pixels, with Gaussian weights, ``(C, H, W)``.

    Args:
        y: image, ``(C, H, W)``.
        places: bool, ``(H, W)``, the pixels to average.
        scale: standard deviation of the weights in pixels, positive. The window is truncated at three times this.
    """
    line = gaussian(math.ceil(3 * scale), scale, like=y)
    weight = places.to(y.dtype)[None]
    return blur(y * weight, line, "replicate") / blur(weight, line, "replicate").clamp_min(1e-6)


def _pad_reflect(values: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Pad by reflection, repeatedly if the padding is larger than the image."""
    left, right, top, bottom = sides
    while left or right or top or bottom:
        width, height = values.shape[-1] - 1, values.shape[-2] - 1
        now = (min(left, width), min(right, width), min(top, height), min(bottom, height))
        if not any(now):  # a single pixel cannot be reflected
            return pad(values, (left, right, top, bottom), mode="replicate")
        values = pad(values, now, mode="reflect")
        left, right, top, bottom = left - now[0], right - now[1], top - now[2], bottom - now[3]
    return values
