"""Linear operators A of ``y = A(X) + s`` (Eq. 1), batched: forward, adjoint, and the identity.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class Operator(nn.Module, ABC):
    """A linear operator of each problem of a batch. A new one writes :meth:`forward` and :meth:`adjoint`.

    Attributes:
        capturable: whether both do the same work on the device at every call, so that a CUDA graph may stand for them.
    """

    capturable: bool = True

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, signal: Tensor) -> Tensor:
        """``A(X)``, ``(K, *n)`` to ``(K, *m)``."""

    @abstractmethod
    def adjoint(self, residual: Tensor) -> Tensor:
        """``A*(r)``, ``(K, *m)`` to ``(K, *n)``: ⟨A(X), r⟩ = ⟨X, A*(r)⟩ for all X and r."""

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """``r += A(φ(θ))`` in place."""
        r.add_(self.forward(signal.evaluate(iteration)))


class Identity(Operator):
    """``A(X) = X``."""

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        if problems.observation.shape[1:] != problems.signal_shape:
            raise ValueError(
                f"Identity needs observations of the signal's shape {problems.signal_shape}, "
                f"got {tuple(problems.observation.shape[1:])}"
            )

    def forward(self, signal: Tensor) -> Tensor:
        """X."""
        return signal

    def adjoint(self, residual: Tensor) -> Tensor:
        """r."""
        return residual

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """``r += φ(θ)``, by the signal itself: a factorisation needs no array for X."""
        signal.add_to_(r, iteration)
