"""Losses of the residual ``r = A(X) + s − y``: value and derivative in closed form, batched.

Shapes: ``r`` is ``(K, *m)``; a value is ``(K,)``, one a problem, so that no problem influences another.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of

AT_ONCE = 2**24
"""Entries of a problem whose function is held at a time, where the whole would be an array as large as the residual.
Large enough for memory that is given back to the system at once."""


def total(r: Tensor, function: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
    """Sum of a function of the entries over everything but the leading dimension, ``(K, *m)`` to ``(K,)``."""
    flat = r.flatten(1)
    if flat.shape[1] <= 2 * AT_ONCE:
        return function(flat).sum(dim=1)
    parts = [function(part).sum(dim=1) for part in flat.split(AT_ONCE, dim=1)]
    return torch.stack(parts).sum(dim=0)


class Loss(ABC):
    """A loss ``ℓ(r)`` that is a sum over entries, or their mean."""

    @abstractmethod
    def value(self, r: Tensor) -> Tensor:
        """``ℓ(r)`` of each problem, ``(K,)``."""

    @abstractmethod
    def derivative_(self, r: Tensor) -> float:
        """Turn ``r`` in place into ``G`` and return ``c``, where ``∂ℓ/∂r = c·G``.

        The factor is returned, not multiplied in, so that a step can take it into its rate.
        """


class SquaredLoss(Loss):
    """``ℓ(r) = w·Σ rᵢ²``.

    Args:
        reduction: ``quarter`` is w = 1/4 (Eqs. 3 and 9), ``half`` is w = 1/2 (Eq. 4 and appendix A), ``sum`` is w = 1
            (Eq. 5), ``mean`` is w = 1/N with N the number of entries of an observation, observed or not
            (the authors' code for images).

    >>> import torch
    >>> SquaredLoss("quarter").value(torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
    tensor([1.0000, 0.5000])
    """

    def __init__(self, reduction: Literal["quarter", "half", "sum", "mean"] = "quarter") -> None:
        self.reduction = one_of("reduction", reduction, ["quarter", "half", "sum", "mean"])

    def _weight(self, r: Tensor) -> float:
        if self.reduction == "mean":
            return 1.0 / math.prod(r.shape[1:])
        return {"quarter": 0.25, "half": 0.5, "sum": 1.0}[self.reduction]

    def value(self, r: Tensor) -> Tensor:
        """``w·Σ rᵢ²`` of each problem."""
        return self._weight(r) * total(r, torch.square)

    def derivative_(self, r: Tensor) -> float:
        """``∂ℓ/∂r = 2w·r``."""
        return 2.0 * self._weight(r)


class AbsoluteLoss(Loss):
    """``ℓ(r) = w·Σ |rᵢ|`` (Eq. 2), with the subgradient ``w·sign(r)``, 0 at 0.

    Args:
        reduction: ``sum`` is w = 1, ``mean`` is w = 1/N.
    """

    def __init__(self, reduction: Literal["sum", "mean"] = "sum") -> None:
        self.reduction = one_of("reduction", reduction, ["sum", "mean"])

    def _weight(self, r: Tensor) -> float:
        return 1.0 / math.prod(r.shape[1:]) if self.reduction == "mean" else 1.0

    def value(self, r: Tensor) -> Tensor:
        """``w·Σ |rᵢ|`` of each problem."""
        return self._weight(r) * total(r, torch.abs)

    def derivative_(self, r: Tensor) -> float:
        """``sign(r)`` in place, and w."""
        r.sign_()
        return self._weight(r)
