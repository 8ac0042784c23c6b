"""Classes of pixels by the direction, the strength and the coherence of the edges around them.

Of the structure tensor [Bigün & Granlund, 1987] ``J = G_σ * ∇x̂ ∇x̂ᵀ``, with eigenvalues ``λ₁ ≥ λ₂``, a class has one of
:data:`DIRECTIONS` of its first eigenvector, one of :data:`STRENGTHS` ranks of ``λ₁ + λ₂``, and one of
:data:`COHERENCES` ranks of ``(λ₁ − λ₂)/(λ₁ + λ₂)``. [Romano, Isidoro & Milanfar, *RAISR*, 2017] choose filters so.

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
"""Boundaries of the classes of strength, as shares of the pixels with less."""

COHERENCES = (1 / 2,)
"""The same of coherence."""


def orientation(estimate: Tensor) -> Tensor:
    """Return the class of each pixel of an image, int64 ``(H, W)``.

    Args:
        estimate: ``(C, H, W)``; the mean of the channels counts.

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
    angle = torch.atan2(2 * b, a - d) / (2 * math.pi)  # half of the angle is the direction
    direction = (angle * DIRECTIONS).round().long() % DIRECTIONS
    strength = classes(a + d, STRENGTHS)
    coherence = classes(difference / (a + d).clamp_min(1e-12), COHERENCES)
    return (direction * (len(STRENGTHS) + 1) + strength) * (len(COHERENCES) + 1) + coherence
