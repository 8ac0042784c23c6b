r"""Models of scratches that are likely in an image, by votes of chains of runs.

A run votes for a value if all its pixels have this value, it is darker or brighter than the pixels at both sides, and
the runs above it agree.
For the opacity of scratches of value v, let p be the first or last pixel of a run and q the pixel outside. Then

    y_p − y_q ≈ o·(v − y_q),    so  ô = ⟨y_p − y_q, v − y_q⟩/|v − y_q|²,

with sums over the channels. A run votes for the mean of ô of both edges if they are close, and the runs above agree.
The peaks of the histograms of votes are the likely models.

Shapes: C×H×W, an image in [0, 1].
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from dop_lightning.engine.steps.clean_entries.run_chains import chain_lengths
from dop_lightning.engine.steps.clean_entries.run_paths import LONGEST
from dop_lightning.engine.steps.clean_entries.scratch_models import FAINTEST, SAME, HalfTransparent, Opaque, mean_square

VALUE_CHAIN, OPACITY_CHAIN = 16, 10
"""Minimum number of runs of a chain that votes for a value, and for an opacity."""

MIN_VOTES = 10
"""Minimum number of votes for a model."""

MAX_VALUES = 8
"""Maximum number of values of opaque scratches."""

OPACITIES = (0.2, 0.95)
"""Range of the opacity of half-transparent scratches."""

SAME_OPACITY = 0.06
"""Tolerance for equal opacities of both edges of a run, and of runs of a chain."""

PEAK = 0.02
"""Half of the width of a peak of the histogram of opacities."""

STANDS_OUT = 1.5
"""Minimum ratio of the votes at a peak to those at any other opacity, further than three times :data:`PEAK`."""

OFF_COLOUR = 0.02
"""Maximum distance of ``y_p − y_q`` from ``ô·(v − y_q)``, root of the mean square over the channels."""


def likely_opaque(parts: list[tuple[Tensor, Tensor]]) -> list[Opaque]:
    """Return the opaque scratches with most votes, from images ``(C, H, W)`` and their known pixels, ``(H, W)``."""
    votes = torch.cat([_value_votes(*part) for part in parts], dim=1)
    grey = torch.arange(256) / 255
    models: list[Opaque] = []
    while votes.shape[1] >= MIN_VOTES and len(models) < MAX_VALUES:
        mean = votes.mean(dim=0)
        counts = (torch.histc(mean, 256, -0.5 / 255, 255.5 / 255)).view(1, -1)
        near = pad(counts, (1, 1)).unfold(1, 3, 1).sum(dim=-1)[0]
        best = int(near.argmax())
        if near[best] < MIN_VOTES:
            break
        models.append(Opaque(votes[:, (mean - grey[best]).abs() <= 1.5 / 255].median(dim=1).values))
        votes = votes[:, (mean - grey[best]).abs() > 3 / 255]
    return models


def likely_half_transparent(parts: list[tuple[Tensor, Tensor]]) -> list[HalfTransparent]:
    """Return the half-transparent scratches with most votes, at most one dark and one bright.

    Args:
        parts: images ``(C, H, W)`` and their known pixels, ``(H, W)``.
    """
    models = []
    grid = torch.linspace(*OPACITIES, round((OPACITIES[1] - OPACITIES[0]) * 100) + 1)
    for value in (0.0, 1.0):
        votes = torch.cat([_opacity_votes(y, known, value) for y, known in parts])
        if len(votes) < MIN_VOTES:
            continue
        counts = ((votes - grid[:, None]).abs() <= PEAK).sum(dim=1)
        best = int(counts.argmax())
        others = counts[(grid - grid[best]).abs() > 3 * PEAK + 1e-3]
        if counts[best] >= max(MIN_VOTES, STANDS_OUT * float(others.max())):
            models.append(HalfTransparent(float(votes[(votes - grid[best]).abs() <= PEAK].mean()), value))
    return models


def _value_votes(y: Tensor, known: Tensor) -> Tensor:
    """Return the values of the chains of one value, ``(C, V)``."""
    votes = []
    for image, seen in ((y, known), (y.transpose(1, 2), known.T)):
        width = image.shape[2]
        contrast = (mean_square(image[..., 1:] - image[..., :-1]) > FAINTEST**2) & seen[:, 1:] & seen[:, :-1]
        first, last = pad(contrast, (1, 0)), pad(contrast, (0, 1))
        into, out_of = pad(image.diff(dim=2), (1, 0)), pad(image.diff(dim=2), (0, 1))
        valid = torch.zeros(LONGEST, *first.shape, dtype=torch.bool)
        alike = torch.ones_like(first)
        for n in range(1, min(LONGEST, width) + 1):
            count = width - n + 1
            alike = alike[:, :count] & ((image[..., n - 1 :] - image[..., :count]).abs().amax(dim=0) <= SAME)
            both = first[:, :count] & last[:, n - 1 :]
            same_sign = (into[..., :count] * out_of[..., n - 1 :]).sum(dim=0) < 0
            valid[n - 1, :, :count] = alike & both & same_sign
        votes.append(image[:, (chain_lengths(image[:, None], valid, SAME) >= VALUE_CHAIN).any(dim=0)])
    return torch.cat(votes, dim=1)


def _opacity_votes(y: Tensor, known: Tensor, value: float) -> Tensor:
    """Return the opacities of the chains of one opacity, ``(V,)``."""
    votes = []
    for image, seen in ((y, known), (y.transpose(1, 2), known.T)):
        width = image.shape[2]
        both = seen[:, 1:] & seen[:, :-1]
        first = pad(_edge_opacity(image[..., 1:], image[..., :-1], value, both), (1, 0), value=torch.inf)
        last = pad(_edge_opacity(image[..., :-1], image[..., 1:], value, both), (0, 1), value=torch.inf)
        opacity = torch.full((LONGEST, *first.shape), torch.inf)
        for n in range(1, min(LONGEST, width) + 1):
            one, other = first[:, : width - n + 1], last[:, n - 1 :]
            opacity[n - 1, :, : width - n + 1] = torch.where(
                (one - other).abs() < SAME_OPACITY, (one + other) / 2, torch.inf
            )
        long = chain_lengths(opacity[None], opacity.isfinite(), SAME_OPACITY) >= OPACITY_CHAIN
        votes.append(opacity[long])
    found = torch.cat(votes)
    return found[(found >= OPACITIES[0]) & (found <= OPACITIES[1])]


def _edge_opacity(inside: Tensor, outside: Tensor, value: float, known: Tensor) -> Tensor:
    """Return ô at the edges between pixels inside and outside, ``(H, W)``; infinite where a scratch has no edge."""
    step, whole = inside - outside, value - outside
    opacity = (step * whole).sum(dim=0) / whole.square().sum(dim=0).clamp_min(1e-6)
    visible = opacity * mean_square(whole).sqrt() > FAINTEST
    fits = mean_square(step - opacity * whole) < OFF_COLOUR**2
    return torch.where(visible & fits & known, opacity, torch.inf)
