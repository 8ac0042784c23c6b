"""The operations of the fused network on a GPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dop_lightning.model.signals.unet.triton_kernels import functions


class TritonOperations:
    """Those of one forward pass of a network: its kernels are cast at once, not one by one.

    Args:
        network: in float32.
        dtype: of activations, bfloat16 or float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        parameters = [p for module in convolutions for p in module.parameters()]
        cast = parameters if dtype == torch.float32 else functions.cast(parameters, dtype)
        self._cast: dict[Tensor, Tensor] = dict(zip(parameters, cast, strict=True))

    def pad(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """Return z with one pixel of reflection padding, in a type."""
        return functions.pad(z, dtype)

    def activate(self, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        """Return x after batch norm, LeakyReLU and padding."""
        return functions.activate(x, gamma, beta, padding)

    def join(self, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        """Return two branches after their norms, upsampling, concatenation, its norm and padding."""
        return functions.join(skip, low, *parameters)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
        """Return the convolution of x, without padding."""
        return F.conv2d(x, self._cast[weight], None if bias is None else self._cast[bias], stride)
