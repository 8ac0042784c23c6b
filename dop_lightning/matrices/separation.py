"""How a matrix is taken apart without a Trainer: the method, and its iterations up to their end."""

from functools import partial

from dop_lightning.engine.state import BatchState, Method
from dop_lightning.engine.steps import SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor

BLOCK = 25
"""Iterations between two looks at whether a problem has come to its end."""


def separation(start: float, tolerance: float, rank: int | None = None) -> Method:
    """``UVᵀ + g∘g − h∘h`` in semi-implicit steps, which are to take ``tau: auto``.

    Args:
        start: scale of the start of all four, above 0.
        tolerance: ends a problem, see :class:`~dop_lightning.engine.steps.SemiImplicit`.
        rank: bound on the rank, at least 1; ``None`` lets it grow.
    """
    return Method(
        partial(Factor, rank=rank, scale=start, growing=rank is None),
        partial(HadamardCorruption, scale=start),
        steps=SemiImplicit(tolerance=tolerance),
    )


def advance_to_end(state: BatchState, maximum: int) -> bool:
    """Do iterations until all problems are finished, ``maximum`` at most; whether none of them diverged."""
    while state.iteration < maximum and len(state.finished()) < len(state):
        if state.advance(min(BLOCK, maximum - state.iteration)):
            return False
    return True
