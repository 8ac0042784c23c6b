"""The skip U-Net by kernels that do in one pass or two over memory what plain torch does in many.

Shapes: images ``(1, C, H, W)``, channels last in memory.
"""

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dop_lightning.model.signals.unet.skip_network import Activated, Scale


class Operations(Protocol):
    """What the network consists of.

    On a CPU it is :mod:`dop_lightning.model.signals.unet.kernels`, on a GPU
    :class:`~dop_lightning.model.signals.unet.triton_kernels.network.TritonOperations`.
    """

    def pad(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """Return z with one pixel of reflection padding, in a type."""

    def activate(self, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        """Return x after batch norm, LeakyReLU and padding."""

    def join(self, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        """Return two branches after their norms, upsampling, concatenation, its norm and padding."""

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
        """Return the convolution of x, without padding."""


def fused_forward(network: nn.Sequential, z: Tensor, dtype: torch.dtype, operations: Operations) -> Tensor:
    """Compute ``network(z)`` with activations in ``dtype``.

    ``network`` comes from :func:`~dop_lightning.model.signals.unet.skip_network.skip_network`.

    Between two convolutions there are two passes: the statistics of the batch norm; and normalising, LeakyReLU and
    padding at once. Upsampling, concatenation and their batch norm are one operation too. What is kept for the gradient
    is what convolutions take and give: of the plain network's arrays a third.

    Args:
        network: in float32.
        z: ``(1, C, H, W)`` float32, H and W multiples of ``2**scales``, without gradient.
        dtype: bfloat16 or float32.
        operations: those of the device.

    Returns:
        ``(1, channels, H, W)`` in ``dtype``.
    """
    return _Forward(operations).network(network, operations.pad(z, dtype))


class _Forward:
    """The layers in their order."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def network(self, network: nn.Sequential, x: Tensor) -> Tensor:
        """From the padded input."""
        top, last = cast(tuple[Scale, nn.Conv2d], network)
        raw, norm = self.scale(top, x)
        return self.convolve(last, self.activate(raw, norm, 0))

    def scale(self, scale: Scale, x: Tensor) -> tuple[Tensor, nn.BatchNorm2d]:
        """One scale, from its padded input to what its last convolution gives, and the batch norm that follows."""
        first, second = cast(tuple[Activated, Activated], scale.down)
        raw = self.convolve(first.convolution, x)
        low, low_norm = self.convolve(second.convolution, self.activate(raw, first.norm, 1)), second.norm
        if scale.deeper is not None:
            low, low_norm = self.scale(scale.deeper, self.activate(low, low_norm, 1))
        skip = self.convolve(scale.skip.convolution, x)
        norms = (scale.skip.norm, low_norm, scale.norm)
        joined = self.operations.join(skip, low, *(p for norm in norms for p in (norm.weight, norm.bias)))
        wide, narrow = cast(tuple[Activated, Activated], scale.merge)
        raw = self.convolve(wide.convolution, joined)
        return self.convolve(narrow.convolution, self.activate(raw, wide.norm, 0)), narrow.norm

    def activate(self, x: Tensor, norm: nn.BatchNorm2d, padding: int) -> Tensor:
        """Norm, LeakyReLU, padding."""
        return self.operations.activate(x, norm.weight, norm.bias, padding)

    def convolve(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        """Without padding: x has it already."""
        return self.operations.convolve(x, convolution.weight, convolution.bias, convolution.stride[0])
