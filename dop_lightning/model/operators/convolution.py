"""Convolutions of images with a known kernel, at every pixel or with stride f.

Shapes: K problems, C channels, H×W pixels of a signal, H'×W' of an observation, h×w taps of a kernel.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Operator
from dop_lightning.model.operators.boundary import Boundary, least_side, pad, unpad
from dop_lightning.problems.problem import ProblemBatch


def convolved_shape(
    signal_shape: tuple[int, ...], kernel: tuple[int, int], boundary: Boundary, factor: int = 1
) -> tuple[int, ...]:
    """Return the shape ``(C, H', W')`` of the observation of a signal ``(C, H, W)``.

    Args:
        signal_shape: shape of one signal.
        kernel: shape (h, w) of the kernel. Both have the same parity as the factor, and are at least as large.
        boundary: see :class:`Convolution`.
        factor: f, at least 1.

    Raises:
        ValueError: the signal is not an image or too small for the kernel, or its sides are not multiples of the
            factor.
    """
    if len(signal_shape) != 3:
        raise ValueError(f"a convolution requires images, C×H×W, got a signal of shape {signal_shape}")
    channels, *sides = signal_shape
    if any(side % factor for side in sides):
        raise ValueError(f"the sides of a signal must be multiples of the factor {factor}, got shape {signal_shape}")
    least = [taps if boundary == "valid" else least_side(boundary, (taps - factor) // 2) for taps in kernel]
    if any(side < low for side, low in zip(sides, least, strict=True)):
        raise ValueError(
            f"a kernel of {kernel[0]}×{kernel[1]} with the boundary {boundary!r} requires signals of at least "
            f"{least[0]}×{least[1]} pixels, got shape {signal_shape}"
        )
    if boundary == "valid":
        sides = [side - taps + 1 for side, taps in zip(sides, kernel, strict=True)]
    return (channels, *(side // factor for side in sides))


class Convolution(Operator):
    r"""``A(X)ᵢ = Σⱼ kⱼ X_{c(i)−j}`` per channel, with the kernel centred at every pixel, or at every f×f block.

    Beyond the edge, X is mirrored without repeating the edge (``reflect``) or extended periodically (``circular``);
    ``valid`` returns only the pixels that do not depend on values beyond the edge, H' = H − h + 1. The adjoint is the
    exact transpose, including the boundary.

    It uses fast Fourier transforms for all kernels: transposed convolutions of PyTorch are tens of times slower on a
    CPU, see docs/decisions.md.

    Args:
        problems: the batch, of images ``(C, H, W)``.
        kernel: ``(h, w)``, with sides of the same parity as the factor, and at least as large.
        boundary: boundary condition.
        factor: stride f; must be 1 for ``valid``.

    Raises:
        ValueError: the signals are too small, or the observations do not have the shape of the convolution.
    """

    spectrum: Tensor

    def __init__(self, problems: ProblemBatch, kernel: Tensor, boundary: Boundary = "reflect", factor: int = 1) -> None:
        super().__init__(problems)
        h, w = kernel.shape
        shape = convolved_shape(problems.signal_shape, (h, w), boundary, factor)
        if tuple(problems.observation.shape[1:]) != shape:
            raise ValueError(
                f"Convolution requires observations of shape {shape}, got {tuple(problems.observation.shape[1:])}"
            )
        self.boundary = boundary
        self.margins = (0, 0) if boundary == "valid" else ((h - factor) // 2, (w - factor) // 2)
        sides = zip(problems.signal_shape[1:], self.margins, strict=True)
        height, width = (side + 2 * margin for side, margin in sides)
        self._padded = (slice(height), slice(width))
        self._sampled = (slice(0, height - h + 1, factor), slice(0, width - w + 1, factor))
        self._sides = (fast_length(height), fast_length(width))
        # a convolution is the correlation with the flipped kernel, whose origin is the first entry of the window
        spectrum = torch.fft.rfft2(kernel.double().flip(0, 1), s=self._sides).conj().resolve_conj()
        complexes = torch.complex128 if problems.dtype == torch.float64 else torch.complex64
        self.register_buffer("spectrum", spectrum.to(complexes), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Return ``k∗X``, ``(K, C, H', W')``."""
        spectrum = torch.fft.rfft2(pad(signal, self.margins, self.boundary), s=self._sides)
        return torch.fft.irfft2(spectrum * self.spectrum, s=self._sides)[..., *self._sampled].contiguous()

    def adjoint(self, residual: Tensor) -> Tensor:
        """Return the transpose applied to a residual, ``(K, C, H, W)``."""
        sampled = residual.new_zeros(*residual.shape[:2], *self._sides)
        sampled[..., *self._sampled] = residual
        padded = torch.fft.irfft2(torch.fft.rfft2(sampled) * self.spectrum.conj(), s=self._sides)[..., *self._padded]
        return unpad(padded, self.margins, self.boundary).contiguous()


def fast_length(least: int) -> int:
    """Return the smallest even number ≥ ``least`` without prime factors above 5, for fast Fourier transforms.

    >>> fast_length(149), fast_length(128)
    (150, 128)
    """
    length = least + least % 2
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1
