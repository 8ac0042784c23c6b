"""Entries that were not observed: ``A(X) = M∘X`` (robust matrix completion, inpainting).

Shapes: K problems, X and observations ``(K, *n)``.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Identity
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class EntryMask(Identity):
    """``A(X) = M∘X`` with M the masks of the problems, 1 where an entry was observed; its own adjoint.

    Raises:
        ValueError: the problems have no mask.
    """

    mask: Tensor

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        if problems.mask is None:
            raise ValueError(f"EntryMask needs problems with a mask, {problems.names[0]!r} has none")
        self.register_buffer("mask", problems.mask.to(problems.dtype), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """``M∘X``."""
        return torch.mul(signal, self.mask)

    def adjoint(self, residual: Tensor) -> Tensor:
        """``M∘r``."""
        return torch.mul(residual, self.mask)

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """``r += M∘φ(θ)``, where r is 0 at the entries that were not observed."""
        signal.add_to_(r, iteration)
        r.mul_(self.mask)
