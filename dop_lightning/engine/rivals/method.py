"""Method for image restoration by a classical filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from dop_lightning.engine.rivals.base import ImageFilter
from dop_lightning.engine.rivals.state import FilterState
from dop_lightning.foundation.signatures import require_part
from dop_lightning.problems.problem import ProblemBatch


@dataclass
class FilterMethod:
    """Filter instead of gradient descent, so that baselines share runs, files and tables.

    A problem ends after one iteration, with status ``done``.

    Args:
        filter: restores one image.

    >>> import torch
    >>> from dop_lightning.engine.rivals import DetectAndFill, ExtremeValues, NormalisedConvolution
    >>> from dop_lightning.problems.problem import Problem
    >>> image = torch.full((1, 8, 8), 0.5)
    >>> image[0, 3, 3] = 1.0
    >>> method = FilterMethod(DetectAndFill(ExtremeValues(), NormalisedConvolution()))
    >>> state = method.begin(ProblemBatch([Problem("mine", image, data_range=1.0)]))
    >>> state.advance(1), state.finished(), round(float(state.evaluate().signal[0, 0, 3, 3]), 6)
    ([], {0: 'done'}, 0.5)
    """

    filter: ImageFilter
    grid: ClassVar[int] = 1
    first: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Check the filter.

        Raises:
            ValueError: the filter has the wrong type, or its methods have the wrong signatures.
        """
        require_part("filter", self.filter, ImageFilter)

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"] = 1.0,
        alpha: float | Sequence[float] | None = None,
    ) -> FilterState:
        """Return the initial state of a batch. ``tau`` and ``alpha`` are ignored: filters have no learning rates."""
        return FilterState(self.filter, problems)
