"""Images as functions of pixel coordinates: a multilayer perceptron with random Fourier features.

Shapes: C channels, H×W pixels, F frequencies.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import at_least, positive


def pixel_coordinates(height: int, width: int) -> Tensor:
    """Return the centres of the pixels in [0, 1]², ``(H·W, 2)``, row by row.

    >>> pixel_coordinates(1, 2)
    tensor([[0.5000, 0.2500],
            [0.5000, 0.7500]])
    """
    rows, columns = ((torch.arange(side) + 0.5) / side for side in (height, width))
    return torch.cartesian_prod(rows, columns)


def fourier_features(coordinates: Tensor, frequencies: Tensor) -> Tensor:
    """Return Fourier features ``γ(v) = [cos(2πBv), sin(2πBv)]`` [Tancik et al., 2020], ``(N, 2F)``.

    Args:
        coordinates: v, ``(N, d)``.
        frequencies: B, ``(F, d)``.
    """
    angles = 2 * math.pi * coordinates @ frequencies.T
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class FourierMLP(nn.Module):
    r"""Coordinate network of an image, ``X[:, i, j] = sigmoid(MLP(γ(v_ij)))``.

    ``γ(v) = [cos(2πBv), sin(2πBv)]`` with a fixed ``B ~ N(0, σ²)``, F×2 [Tancik et al., *Fourier Features Let Networks
    Learn High Frequency Functions in Low Dimensional Domains*, NeurIPS 2020]. σ determines the prior: with larger
    values, finer detail is learned earlier, but also more noise.

    Use it as ``NetworkSignal(problems, FourierMLP)``, or under ``signal`` in YAML, see docs/own_signal.md. It is called
    without an input, since it stores the coordinates.

    Args:
        shape: shape of the image, (C, H, W).
        width: width of the hidden layers, at least 1.
        depth: number of hidden layers (linear and ReLU), at least 1.
        frequencies: number of frequencies F, at least 1.
        sigma: σ, in periods per side of the image, above 0.

    Raises:
        ValueError: the signal is not an image, or an argument is out of range.
    """

    features: Tensor

    def __init__(
        self, shape: Sequence[int], width: int = 128, depth: int = 3, frequencies: int = 64, sigma: float = 4.0
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"FourierMLP requires images, C×H×W, got a signal of shape {tuple(shape)}")
        at_least("width", width, 1)
        at_least("depth", depth, 1)
        at_least("frequencies", frequencies, 1)
        self.shape = tuple(shape)
        channels, *size = self.shape
        B = positive("sigma", sigma) * torch.randn(frequencies, 2)
        self.register_buffer("features", fourier_features(pixel_coordinates(*size), B), persistent=False)  # HW 2F
        sides = [2 * frequencies] + [width] * depth
        hidden = [layer for i in range(depth) for layer in (nn.Linear(sides[i], sides[i + 1]), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, channels))

    def forward(self) -> Tensor:
        """Return the image, ``(C, H, W)``, with values in (0, 1)."""
        return torch.sigmoid(self.layers(self.features)).T.reshape(self.shape)
