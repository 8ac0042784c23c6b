"""Skip U-Net with fused kernels, which replace many passes over memory by one or two.

Shapes: images ``(1, C, H, W)``, channels last in memory.
"""

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dop_lightning.model.signals.unet.skip_network import Activated, Scale


class Operations(Protocol):
    """Operations of the network.

    They are implemented for CPUs by :mod:`dop_lightning.model.signals.unet.kernels`, and for GPUs by
    :class:`~dop_lightning.model.signals.unet.triton_kernels.network.TritonOperations`.
    """

    def pad(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """Return z with one pixel of reflection padding, in another dtype."""

    def activate(self, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        """Apply batch norm, LeakyReLU and padding to x."""

    def join(self, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        """Activate two branches, upsample the lower one, and concatenate, normalise and pad the result."""

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
        """Return the convolution of x without padding."""


def fused_forward(network: nn.Sequential, z: Tensor, dtype: torch.dtype, operations: Operations) -> Tensor:
    """Compute ``network(z)`` with activations in ``dtype``.

    There are two passes between convolutions: one for the statistics of the batch norm, and one for normalisation,
    LeakyReLU and padding together. Upsampling, concatenation and their batch norm are also one operation. Only inputs
    and outputs of convolutions are saved for the gradient, a third of the arrays of the plain network.

    Args:
        network: network created by :func:`~dop_lightning.model.signals.unet.skip_network.skip_network`, in float32.
        z: ``(1, C, H, W)`` in float32 without gradient, where H and W are multiples of ``2**scales``.
        dtype: bfloat16 or float32.
        operations: operations of the device.

    Returns:
        ``(1, channels, H, W)`` in ``dtype``.
    """
    return _Forward(operations).network(network, operations.pad(z, dtype))


class _Forward:
    """Forward pass through all layers."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def network(self, network: nn.Sequential, x: Tensor) -> Tensor:
        """Evaluate the network for a padded input."""
        top, last = cast(tuple[Scale, nn.Conv2d], network)
        raw, norm = self.scale(top, x)
        return self.convolve(last, self.activate(raw, norm, 0))

    def scale(self, scale: Scale, x: Tensor) -> tuple[Tensor, nn.BatchNorm2d]:
        """Evaluate one scale for a padded input; return the output of its last convolution and the next batch norm."""
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
        """Apply batch norm, LeakyReLU and padding."""
        return self.operations.activate(x, norm.weight, norm.bias, padding)

    def convolve(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        """Apply a convolution to x, which is already padded."""
        return self.operations.convolve(x, convolution.weight, convolution.bias, convolution.stride[0])
