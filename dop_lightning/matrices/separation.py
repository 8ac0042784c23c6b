"""How a matrix is separated into a low-rank and a sparse part."""

from functools import partial

from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor


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
