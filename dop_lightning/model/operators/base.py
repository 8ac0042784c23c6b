"""Base class of linear operators A in ``y = A(X) + s`` (Eq. 1), batched, and the identity.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class Operator(nn.Module, ABC):
    """Linear operator for each problem of a batch. Subclasses implement :meth:`forward` and :meth:`adjoint`.

    Attributes:
        capturable: whether both perform the same device operations at every call, so that they can be captured in a
            CUDA graph.
    """

    capturable: bool = True

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, signal: Tensor) -> Tensor:
        """Return ``A(X)``, ``(K, *n)`` to ``(K, *m)``."""

    @abstractmethod
    def adjoint(self, residual: Tensor) -> Tensor:
        """Return ``A*(r)``, ``(K, *m)`` to ``(K, *n)``, with ⟨A(X), r⟩ = ⟨X, A*(r)⟩ for all X and r."""

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """Add in place, ``r += A(φ(θ))``."""
        r.add_(self.forward(signal.evaluate(iteration)))


class Identity(Operator):
    """Identity, ``A(X) = X``."""

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        if problems.observation.shape[1:] != problems.signal_shape:
            raise ValueError(
                f"Identity requires observations with the shape of the signal, {problems.signal_shape}, "
                f"got {tuple(problems.observation.shape[1:])}"
            )

    def forward(self, signal: Tensor) -> Tensor:
        """Return X."""
        return signal

    def adjoint(self, residual: Tensor) -> Tensor:
        """Return r."""
        return residual

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """Add in place, ``r += φ(θ)``, with the method of the signal: factorisations do not form X."""
        signal.add_to_(r, iteration)
