r"""Decorrelation of the channels of a pixel.

If an estimate blurs or shifts an edge, its residuals ``r = y − x̂`` are similar in all channels, because luminance
changes much more than colour. In contrast, the residual of a pixel that is corrupted as a whole can have any direction.
The two are compared after the transform

    ``z = c·Λ^(−½)·Uᵀ·r``,   ``Σ = U·Λ·Uᵀ`` the covariance of r at clean pixels,   ``c = det(Σ)^(1/(2C))``.

The components of z are uncorrelated and have the same scale. The transform preserves volume, so the density of z equals
the density of r. Σ is the scatter matrix of a multivariate t distribution with ν = 3, fitted by
expectation-maximisation (EM) [Lange, Little, Taylor, J. Am. Stat. Assoc. 1989].

Shapes: N pixels of C channels, ``(N, C)``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.mixture import DEGREES

ROUNDS = 20
"""Number of EM iterations."""

MAX_PIXELS = 20_000
"""Approximate maximum number of pixels to which Σ is fitted."""

MAX_PATTERNS = 64
"""Maximum number of patterns of observed channels. With more, pixels with unobserved channels are not transformed."""


@dataclass(frozen=True)
class Decorrelation:
    """Transform that decorrelates the channels of pixels for a given covariance.

    Attributes:
        covariance: Σ, ``(C, C)``, positive definite, float64.
    """

    covariance: Tensor

    @classmethod
    def of(cls, residual: Tensor, clean: Tensor, least: float) -> "Decorrelation":
        """Fit Σ.

        Args:
            residual: r of each pixel, ``(N, C)``.
            clean: probability that each pixel is clean, ``(N,)``, in [0, 1]; must be 0 for pixels with unobserved
                channels.
            least: lower bound on the standard deviation of a component, positive.

        >>> grey = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> colour = 0.1 * torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
        >>> pixels = grey + colour
        >>> everywhere = torch.ones(500, 3, dtype=torch.bool)
        >>> z, _ = Decorrelation.of(pixels, torch.ones(500), 1e-3).turned(pixels, everywhere)
        >>> bool((torch.corrcoef(z.T) - torch.eye(3)).abs().max() < 0.05)
        True
        """
        every = max(1, len(residual) // MAX_PIXELS)
        r, weights = residual[::every].double(), clean[::every].double()
        size, number = r.shape[1], weights.sum().clamp_min(1e-12)
        unit = torch.eye(size, dtype=r.dtype, device=r.device)
        floor = least**2 * unit
        covariance = (r.square().sum(1) * weights).sum() / (size * number) * unit + floor
        for _ in range(ROUNDS):
            distance = (r * torch.linalg.solve(covariance, r.T).T).sum(1)
            counted = weights * (DEGREES + size) / (DEGREES + distance)
            covariance = (r.T * counted) @ r / number + floor
        return cls(covariance)

    def turned(self, pixels: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Transform pixels. For pixels with unobserved channels, the covariance of the observed channels is used.

        Args:
            pixels: values or residuals, ``(N, C)``.
            seen: bool, ``(N, C)``, the observed channels.

        Returns:
            The transformed pixels, ``(N, C)``, unchanged at unobserved channels, and the log-determinant of the
            transform, ``(N,)``, which is 0 for completely observed pixels.
        """
        result, volume = pixels.clone(), pixels.new_zeros(len(pixels))
        c = self.covariance.logdet() / (2 * len(self.covariance))
        complete = seen.all(dim=1)
        patterns, at = seen[~complete].unique(dim=0, return_inverse=True)
        places = (~complete).nonzero().squeeze(1)
        todo = [(seen.new_ones(seen.shape[1]), complete.nonzero().squeeze(1))]
        todo += [(pattern, places[at == k]) for k, pattern in enumerate(patterns) if len(patterns) <= MAX_PATTERNS]
        for pattern, rows in todo:
            channels = pattern.nonzero().squeeze(1)
            if not len(rows) or not len(channels):
                continue
            part = self.covariance[channels][:, channels]
            values, directions = torch.linalg.eigh(part)
            matrix = directions * (c.exp() / values.sqrt())
            result[rows[:, None], channels] = pixels[rows[:, None], channels] @ matrix.to(pixels.dtype)
            volume[rows] = (len(channels) * c - part.logdet() / 2).to(volume.dtype)
        return result, volume

    def turned_image(self, image: Tensor, seen: Tensor) -> Tensor:
        """Transform the pixels of an image ``(C, H, W)``, see :meth:`turned`."""
        rows, known = (tensor.flatten(1).T for tensor in (image, seen))
        return self.turned(rows, known)[0].T.reshape(image.shape)
