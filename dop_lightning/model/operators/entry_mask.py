"""Missing entries: ``A(X) = M∘X`` (robust matrix completion, inpainting).

Shapes: K problems, X and observations ``(K, *n)``.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Identity
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class EntryMask(Identity):
    """``A(X) = M∘X``, where M is the mask of a problem, 1 where an entry was observed. It is self-adjoint.

    Raises:
        ValueError: the problems have no mask.
    """

    mask: Tensor

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        if problems.mask is None:
            raise ValueError(f"EntryMask requires problems with a mask, {problems.names[0]!r} has none")
        self.register_buffer("mask", problems.mask.to(problems.dtype), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Return ``M∘X``."""
        return torch.mul(signal, self.mask)

    def adjoint(self, residual: Tensor) -> Tensor:
        """Return ``M∘r``."""
        return torch.mul(residual, self.mask)

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """Add in place, ``r += M∘φ(θ)``. r must be 0 at entries that were not observed."""
        signal.add_to_(r, iteration)
        r.mul_(self.mask)
