"""Losses of the residual ``r = A(X) + s − y``, with values and derivatives in closed form, batched.

Shapes: ``r`` is ``(K, *m)``; values are ``(K,)``, one per problem, so that problems do not influence each other.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of

AT_ONCE = 2**24
"""Number of entries of a problem that are processed at once, to avoid a temporary array as large as the residual. The
temporary arrays are large enough to be returned to the system as soon as they are freed."""


def total(r: Tensor, function: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
    """Sum a function of the entries over all dimensions except the first, ``(K, *m)`` to ``(K,)``."""
    flat = r.flatten(1)
    if flat.shape[1] <= 2 * AT_ONCE:
        return function(flat).sum(dim=1)
    parts = [function(part).sum(dim=1) for part in flat.split(AT_ONCE, dim=1)]
    return torch.stack(parts).sum(dim=0)


class Loss(ABC):
    """Loss ``ℓ(r)``, a sum or mean over entries."""

    @abstractmethod
    def value(self, r: Tensor) -> Tensor:
        """Return ``ℓ(r)`` for each problem, ``(K,)``."""

    @abstractmethod
    def derivative_(self, r: Tensor) -> float:
        """Replace ``r`` in place by ``G`` and return ``c``, where ``∂ℓ/∂r = c·G``.

        The factor is returned separately, so that a step can include it in its learning rate.
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
        """Return ``w·Σ rᵢ²`` for each problem."""
        return self._weight(r) * total(r, torch.square)

    def derivative_(self, r: Tensor) -> float:
        """Return 2w, since ``∂ℓ/∂r = 2w·r``; ``r`` is unchanged."""
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
        """Return ``w·Σ |rᵢ|`` for each problem."""
        return self._weight(r) * total(r, torch.abs)

    def derivative_(self, r: Tensor) -> float:
        """Replace ``r`` by ``sign(r)`` in place, and return w."""
        r.sign_()
        return self._weight(r)
