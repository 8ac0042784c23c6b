"""Linear regression (appendix A): the signal is θ itself, with a separate learning rate for each coordinate.

Shapes: K problems; ``*n`` is the shape of a signal, N its number of entries.
"""

import math

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import not_negative, positive
from dop_lightning.model.part import Rate
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class Coordinates(Signal):
    r"""``X = θ``, with gradient descent ``θ ← θ − τ·Λ·∂f/∂θ`` for a positive diagonal Λ (Eq. 18).

    With ``A = W`` and the half squared loss this is ``θ ← θ − τ·Λ·Wᵀ(Wθ − b)``. From 0, it converges to the solution of
    ``Wθ = b`` with minimum ``½‖Λ^(−1/2)θ‖²`` (Eq. 19), see :mod:`dop_lightning.paper.theory.least_norm`.

    The parameter is ``θ̃ = Λ^(−1/2)·θ``, whose plain gradient descent is Eq. 18 (change of variables in Eqs. 20 to 22).
    Λ is thus a part of the signal, ``X = Λ^(1/2)·θ̃``, and independent of the optimizer.

    Args:
        problems: the batch, with signals of any shape.
        rates: diagonal of Λ, above 0: one number, or one for each of the N entries of a signal in row-major order.
        scale: standard deviation of the initial values, ``θ ~ N(0, scale²)``, at least 0.

    Raises:
        ValueError: a rate is not a finite number above 0, the number of rates is not N, or ``scale`` is negative.
    """

    closed_form = True
    root: Tensor

    def __init__(self, problems: ProblemBatch, rates: float | list[float] = 1.0, scale: float = 0.0) -> None:
        super().__init__(problems)
        shape = problems.signal_shape
        entries = math.prod(shape)
        numbers = rates if isinstance(rates, list) else [rates] * entries
        if len(numbers) != entries:
            raise ValueError(f"rates must be one number or a list of one per entry, {entries}, got {len(numbers)}")
        diagonal = torch.tensor([positive("rates", number) for number in numbers], dtype=problems.dtype, device="cpu")
        self.register_buffer("root", diagonal.sqrt().view(shape).to(problems.device), persistent=False)  # *n
        if not_negative("scale", scale) > 0:
            theta = problems.normal(shape, scale, "init")
        else:
            theta = torch.zeros(len(problems), *shape, dtype=problems.dtype, device=problems.device)
        self.theta = nn.Parameter(theta / self.root)  # K *n
        self.alias_parameters()

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``θ = Λ^(1/2)·θ̃``."""
        return self.theta * self.root

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """Add in place, ``r += θ``."""
        r.addcmul_(self.arrays[0], self.root)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂θ̃ = Λ^(1/2)·G``."""
        self.theta.grad = derivative * self.root * factor

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``θ̃ ← θ̃ − rate·Λ^(1/2)·G``, that is, ``θ ← θ − rate·Λ·G`` (Eq. 18)."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative * rate, 1.0
        self.arrays[0].addcmul_(derivative, self.root, value=-rate)
