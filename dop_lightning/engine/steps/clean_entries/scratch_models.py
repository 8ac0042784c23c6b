r"""Models of scratches, and the log likelihood ratio of a run of pixels under a model and as part of the picture.

A half-transparent scratch shows ``(1 − o)·x + o·v`` with one opacity o and one value v, 0 or 1. Inside it the picture
would be ``x̂ = (y − o·v)/(1 − o)``. Let p be the first pixel of a run, and q its left neighbour, outside. Differences d
of adjacent pixels of a picture have heavy tails, with a density close to ``1/(ε² + d²)``. So at an edge of a run,

    log ratio = log(ε² + |y_p − y_q|²) − log(ε² + |x̂_p − y_q|²)

and for two adjacent pixels of a run, it is ``log(ε² + d²) − log(ε² + d²/(1 − o)²)`` with ``d = |y_p − y_q|``, which is
negative at lines of objects: they are blurred, and would not be smooth if they were a scratch. A run inside which x̂
leaves the range of images is impossible.

An opaque scratch has one value throughout, and the picture outside changes less than at its edge. With the pixel r
beyond q, the gain at an edge is ``log(ε² + |y_p − y_q|²) − log(ε² + |y_q − y_r|² + κ²)``.

|·|² is the mean over the channels of the square.

Shapes: C×H×W, an image in [0, 1].
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dop_lightning.engine.steps.clean_entries.run_paths import run_gains

FINE = 3 / 255
"""Scale ε of small differences between adjacent pixels."""

EDGE_LIMIT = 3.0
"""Maximum magnitude of the gain at one edge, so that no single pixel decides."""

RUN_COST = 0.6
"""Cost of a run: scratches are rare."""

PAIR_WEIGHT = 0.5
"""Weight of the ratio for two pixels of a run. It is below 1 because these pairs are more numerous than the edges and
depend on each other."""

HALF = 0.5
"""For ``1 − o`` below this, the ratio for two pixels is scaled to the range that it has here. Otherwise rounding and
texture, divided by ``1 − o``, would outweigh the edges."""

BEYOND, BEYOND_COST = 0.02, 6.0
"""Margin by which x̂ may leave the range of images, and the cost of each pixel at which it does."""

SAME = 2.5 / 255
"""Tolerance for the value of an opaque scratch."""

OTHER_COST = 6.0
"""Cost of each pixel of another value in an opaque scratch."""

FAINTEST = 0.04
"""Contrast κ at the edges of opaque scratches."""


def mean_square(difference: Tensor) -> Tensor:
    """Return the mean over the channels of the square, ``(H, W)``."""
    return difference.square().mean(dim=0)


@dataclass(frozen=True)
class HalfTransparent:
    """A half-transparent scratch.

    Attributes:
        opacity: opacity o, above 0 and below 1.
        value: value v, 0 or 1.
    """

    opacity: float
    value: float

    def gains(self, y: Tensor, known: Tensor) -> Tensor:
        """Return the gain of each run, ``(N, H, W)``.

        Args:
            y: image, ``(C, H, W)``.
            known: bool, ``(H, W)``. Unknown pixels give no evidence.
        """
        shown = 1 - self.opacity
        x = (y - self.opacity * self.value) / shown
        beyond = ((x < -BEYOND) | (x > 1 + BEYOND)).any(dim=0) & known
        across = FINE**2 + mean_square(y[..., 1:] - y[..., :-1])
        as_first = across.log() - (FINE**2 + mean_square(x[..., 1:] - y[..., :-1])).log()
        as_last = across.log() - (FINE**2 + mean_square(x[..., :-1] - y[..., 1:])).log()
        pairs = across.log() - (FINE**2 + (across - FINE**2) / shown**2).log()
        pairs = pairs * min(1.0, math.log(HALF) / math.log(shown))
        both = known[:, 1:] & known[:, :-1]
        as_first, as_last, pairs = (torch.where(both, each, 0) for each in (as_first, as_last, pairs))
        return run_gains(
            pad(as_first.clamp(-EDGE_LIMIT, EDGE_LIMIT), (1, 0)) - RUN_COST,
            pad(as_last.clamp(-EDGE_LIMIT, EDGE_LIMIT), (0, 1)),
            -BEYOND_COST * beyond,
            pad(PAIR_WEIGHT * pairs, (1, 0)),
        )


@dataclass(frozen=True)
class Opaque:
    """An opaque scratch.

    Attributes:
        value: its value, ``(C,)``.
    """

    value: Tensor

    def gains(self, y: Tensor, known: Tensor) -> Tensor:
        """Return the gain of each run, ``(N, H, W)``; for the arguments see :meth:`HalfTransparent.gains`."""
        other = ((y - self.value[:, None, None]).abs().amax(dim=0) > SAME) & known
        both = known[:, 1:] & known[:, :-1]
        across = torch.where(both, mean_square(y[..., 1:] - y[..., :-1]), 0)
        before, after = pad(across[:, :-1], (1, 0)), pad(across[:, 1:], (0, 1))
        logarithm = (FINE**2 + across).log()
        as_first = logarithm - (FINE**2 + FAINTEST**2 + before).log()
        as_last = logarithm - (FINE**2 + FAINTEST**2 + after).log()
        as_first, as_last = (torch.where(both, each, 0).clamp(-EDGE_LIMIT, EDGE_LIMIT) for each in (as_first, as_last))
        return run_gains(
            pad(as_first, (1, 0)) - RUN_COST, pad(as_last, (0, 1)), -OTHER_COST * other, torch.zeros_like(y[0])
        )
