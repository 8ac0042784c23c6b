"""Operations of the fused network on a GPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dop_lightning.model.signals.unet.triton_kernels import functions


class TritonOperations:
    """Operations of one forward pass of a network, whose convolution weights are all cast in one launch.

    Args:
        network: network in float32.
        dtype: dtype of activations, bfloat16 or float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        parameters = [p for module in convolutions for p in module.parameters()]
        cast = parameters if dtype == torch.float32 else functions.cast(parameters, dtype)
        self._cast: dict[Tensor, Tensor] = dict(zip(parameters, cast, strict=True))

    def pad(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """Return z with one pixel of reflection padding, in another dtype."""
        return functions.pad(z, dtype)

    def activate(self, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        """Apply batch norm, LeakyReLU and padding to x."""
        return functions.activate(x, gamma, beta, padding)

    def join(self, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        """Activate two branches, upsample the lower one, and concatenate, normalise and pad the result."""
        return functions.join(skip, low, *parameters)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
        """Return the convolution of x without padding."""
        return F.conv2d(x, self._cast[weight], None if bias is None else self._cast[bias], stride)
