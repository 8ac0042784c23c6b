"""The skip U-Net by kernels that do in one pass over memory what plain torch does in several.

Shapes: images ``(1, C, H, W)``, channels last in memory.
"""

from typing import cast

import torch
from torch import Tensor, nn

from dop_lightning.model.signals.unet import kernels
from dop_lightning.model.signals.unet.skip_network import Activated, Scale


def fused_forward(network: nn.Sequential, z: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute ``network(z)`` with activations in ``dtype``.

    ``network`` comes from :func:`~dop_lightning.model.signals.unet.skip_network.skip_network`.

    Between two convolutions there are two passes: the statistics of the batch norm; and normalising, LeakyReLU and
    padding at once. Upsampling, concatenation and their batch norm are one operation too. What is kept for the gradient
    is what convolutions take and give: of the plain network's arrays a third.

    Args:
        network: on the CPU, in float32.
        z: ``(1, C, H, W)`` float32, H and W multiples of ``2**scales``, without gradient.
        dtype: bfloat16 or float32.

    Returns:
        ``(1, channels, H, W)`` in ``dtype``.
    """
    top, last = cast(tuple[Scale, nn.Conv2d], network)
    raw, norm = _scale(top, kernels.pad(z, dtype))
    return _convolve(last, _activate(raw, norm, 0))


def _scale(scale: Scale, x: Tensor) -> tuple[Tensor, nn.BatchNorm2d]:
    """One scale, from its padded input to what its last convolution gives, and the batch norm that follows."""
    first, second = cast(tuple[Activated, Activated], scale.down)
    raw = _convolve(first.convolution, x)
    low, low_norm = _convolve(second.convolution, _activate(raw, first.norm, 1)), second.norm
    if scale.deeper is not None:
        low, low_norm = _scale(scale.deeper, _activate(low, low_norm, 1))
    skip = _convolve(scale.skip.convolution, x)
    norms = (scale.skip.norm, low_norm, scale.norm)
    joined = kernels.join(skip, low, *(p for norm in norms for p in (norm.weight, norm.bias)))
    wide, narrow = cast(tuple[Activated, Activated], scale.merge)
    raw = _convolve(wide.convolution, joined)
    return _convolve(narrow.convolution, _activate(raw, wide.norm, 0)), narrow.norm


def _activate(x: Tensor, norm: nn.BatchNorm2d, padding: int) -> Tensor:
    return kernels.activate(x, norm.weight, norm.bias, padding)


def _convolve(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Without padding: x has it already."""
    return kernels.convolve(x, convolution.weight, convolution.bias, convolution.stride[0])
