"""Recipe for separating a matrix into a low-rank and a sparse part, with or without a Trainer."""

from dataclasses import dataclass

from dop_lightning.engine.method import Method
from dop_lightning.engine.recipe import Piece, Recipe
from dop_lightning.engine.steps import SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor

BLOCK = 25
"""Iterations between checks whether a problem has ended."""


@dataclass(frozen=True)
class Separation:
    """Settings of ``dop separate`` and :class:`~dop_lightning.matrices.robust_pca.RobustPCA`.

    The model ``UVᵀ + g∘g − h∘h`` is fitted by semi-implicit steps, which determine τ from the data.

    Attributes:
        tolerance: a problem ends once its residual is below this fraction of the recovered signal, see
            :class:`~dop_lightning.engine.steps.SemiImplicit`.
        start: scale of the initialization of U, V, g and h, in units of the square root of the data; the remaining
            error is of this order.
        iterations: maximum number of iterations.
    """

    tolerance: float
    start: float = 1e-5
    iterations: int = 500

    def recipe(self, rank: int | None = None, alpha: float | list[float] | None = None, unit: float = 1.0) -> Recipe:
        """Return all settings of the separation.

        Args:
            rank: maximum rank, at least 1; ``None`` for no limit.
            alpha: ratio of the learning rates, or one per matrix; ``None`` uses that of the problems.
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
"""Settings for matrices."""

SCENE = Separation(tolerance=1e-4)
"""Settings for scenes, where one grey level is 1/255."""


def separation(start: float, tolerance: float, rank: int | None = None) -> Method:
    """Return the method that :class:`Separation` specifies; use it with ``tau: auto``.

    Args:
        start: scale of the initialization, above 0.
        tolerance: a problem ends below this relative residual, above 0.
        rank: maximum rank, at least 1; ``None`` for no limit.
    """
    return Separation(tolerance, start).recipe(rank).method()
