"""Classify pixels by the direction, strength and coherence of the edges around them.

The classes are derived from the structure tensor [Bigün & Granlund, 1987] ``J = G_σ * ∇x̂ ∇x̂ᵀ``, with eigenvalues
``λ₁ ≥ λ₂``. A class is a combination of one of :data:`DIRECTIONS` directions of the first eigenvector, a quantile range
of the strength ``λ₁ + λ₂`` (:data:`STRENGTHS`), and a quantile range of the coherence ``(λ₁ − λ₂)/(λ₁ + λ₂)``
(:data:`COHERENCE_QUANTILES`). [Romano, Isidoro & Milanfar, *RAISR*, 2017] select filters in this way.

Shapes: C×H×W, an image.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from dop_lightning.engine.steps.clean_entries.activity import classes
from dop_lightning.engine.steps.clean_entries.blur import blur, gaussian

SCALE = 1.5
"""σ of the smoothing, pixels."""

DIRECTIONS = 8
"""Number of directions over 180°."""

STRENGTHS = (1 / 3, 2 / 3)
"""Boundaries of the classes of strength, as quantiles over the pixels."""

COHERENCE_QUANTILES = (1 / 2,)
"""Boundaries of the classes of coherence, as quantiles over the pixels."""


def orientation(estimate: Tensor) -> Tensor:
    """Return the class of each pixel of an image, int64 ``(H, W)``.

    Args:
        estimate: ``(C, H, W)``; the channels are averaged.

    >>> ramp = torch.linspace(0, 1, 32).expand(1, 32, 32)
    >>> bool((orientation(ramp) == orientation(ramp.mT).mT).any())
    False
    """
    grey = estimate.mean(0, keepdim=True)
    around = pad(grey[None], (1, 1, 1, 1), mode="replicate")[0]
    across = (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / 2
    down = (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / 2
    line = gaussian(math.ceil(3 * SCALE), SCALE, like=grey)
    a, d, b = blur(torch.cat([across.square(), down.square(), across * down]), line, "reflect")
    difference = torch.sqrt((a - d).square() + 4 * b.square())
    angle = torch.atan2(2 * b, a - d) / (2 * math.pi)  # φ/π for the direction φ
    direction = (angle * DIRECTIONS).round().long() % DIRECTIONS
    strength = classes(a + d, STRENGTHS)
    coherence = classes(difference / (a + d).clamp_min(1e-12), COHERENCE_QUANTILES)
    return (direction * (len(STRENGTHS) + 1) + strength) * (len(COHERENCE_QUANTILES) + 1) + coherence
