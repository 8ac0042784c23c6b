"""Sparse signals as a difference of Hadamard products, ``X = g∘g − h∘h`` (Eq. 5).

Shapes: K problems; ``*n`` is the shape of a signal.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import one_of, positive
from dop_lightning.model.part import Rate
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class HadamardSignal(Signal):
    """``X = g∘g − h∘h`` (Eq. 5). Gradient descent from a small initial value is biased towards sparse X.

    It is the parameterisation of :class:`~dop_lightning.model.corruption.HadamardCorruption` used for the signal, on
    which A acts. With ``G = ∂f/∂X``, the gradients are ``∂f/∂g = 2·G∘g`` and ``∂f/∂h = −2·G∘h``. Together with a
    corruption at the rate α·τ, gradient descent is biased towards small ``‖X‖₁ + ‖s‖₁/α``.

    Args:
        problems: the batch, with signals of any shape.
        scale: scale of the initial values, above 0. Smaller values give sparser signals but take longer.
        start: ``gaussian`` draws ``g ~ N(0, scale²)``, ``constant`` is ``g = scale·1`` (Eq. 11). In both cases
            ``h = g``, so that X is initially 0.

    Raises:
        ValueError: ``scale`` is not a finite number above 0, or ``start`` is unknown.
    """

    closed_form = True

    def __init__(
        self, problems: ProblemBatch, scale: float = 1e-4, start: Literal["gaussian", "constant"] = "gaussian"
    ) -> None:
        super().__init__(problems)
        shape = problems.signal_shape
        positive("scale", scale)
        if one_of("start", start, ["gaussian", "constant"]) == "gaussian":
            g = problems.normal(shape, scale, "init")
        else:
            g = torch.full((len(problems), *shape), scale, dtype=problems.dtype, device=problems.device)
        self.g = nn.Parameter(g)  # K *n
        self.h = nn.Parameter(g.clone())
        self.alias_parameters()

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``g∘g − h∘h``."""
        return torch.addcmul(self.g.square(), self.h, self.h, value=-1)

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """Add in place, ``r += g∘g − h∘h``."""
        g, h = self.arrays
        r.addcmul_(g, g)
        r.addcmul_(h, h, value=-1)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂g = 2·G∘g`` and ``∂f/∂h = −2·G∘h``."""
        g, h = self.arrays
        self.g.grad = derivative * g * (2 * factor)
        self.h.grad = derivative * h * (-2 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``g ← g − 2·rate·G∘g`` and ``h ← h + 2·rate·G∘h``."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative * rate, 1.0
        g, h = self.arrays
        g.addcmul_(derivative, g, value=-2 * rate)
        h.addcmul_(derivative, h, value=2 * rate)
