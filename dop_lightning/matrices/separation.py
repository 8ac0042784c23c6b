"""How a matrix is separated into a low-rank and a sparse part: the recipe, with a Trainer and without."""

from dataclasses import dataclass

from dop_lightning.engine.method import Method
from dop_lightning.engine.recipe import Piece, Recipe
from dop_lightning.engine.steps import SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor

BLOCK = 25
"""Iterations between two looks at whether a problem has ended."""


@dataclass(frozen=True)
class Separation:
    """A setting of ``dop separate`` and :class:`~dop_lightning.matrices.robust_pca.RobustPCA`.

    ``UVᵀ + g∘g − h∘h`` in semi-implicit steps, which take τ from the data.

    Attributes:
        tolerance: ends a problem where its residual is this part of what is recovered, see
            :class:`~dop_lightning.engine.steps.SemiImplicit`.
        start: scale of the start of all four, in units of the square root of the data; the remaining error is
            of this order.
        iterations: at most.
    """

    tolerance: float
    start: float = 1e-5
    iterations: int = 500

    def recipe(self, rank: int | None = None, alpha: float | list[float] | None = None, unit: float = 1.0) -> Recipe:
        """Return all settings of the separation.

        Args:
            rank: bound on the rank, at least 1; ``None`` lets it grow.
            alpha: ratio of the rates, or one per matrix; ``None`` takes it from the problems.
            unit: square root of the scale of the data.
        """
        start = self.start * unit
        bound = {} if rank is None else {"rank": rank}
        return Recipe(
            signal=Piece(Factor, {"growing": rank is None, "scale": start, **bound}),
            corruption=Piece(HadamardCorruption, {"scale": start}),
            steps=Piece(SemiImplicit, {"tolerance": self.tolerance}),
            tau="auto",
            alpha=alpha,
            block=BLOCK,
            evaluate_every=BLOCK,
        )


MATRIX = Separation(tolerance=1e-5)
"""For matrices."""

SCENE = Separation(tolerance=1e-4)
"""For scenes: a level of a frame is 1/255."""


def separation(start: float, tolerance: float, rank: int | None = None) -> Method:
    """Return the parts of the engine that :class:`Separation` names, which are to take ``tau: auto``.

    Args:
        start: scale of the start, above 0.
        tolerance: ends a problem, above 0.
        rank: bound on the rank, at least 1; ``None`` lets it grow.
    """
    return Separation(tolerance, start).recipe(rank).method()
