"""What some signals can do beyond ``φ(θ)`` and its gradient: named abilities that the engine asks a signal for.

A signal that lacks an ability has ``None`` in its place, see :class:`~dop_lightning.model.signals.base.Signal`. No code
asks which class a signal is of, so that a signal of your own can have each of them.

Shapes: K problems, n rows, m columns, r columns of the factors.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Factors(Protocol):
    """A signal ``X = left·rightᵀ``.

    Attributes:
        symmetric: whether both factors are the same array, so that X is positive semidefinite.
    """

    symmetric: bool

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The factors ``(K, n, r)`` and ``(K, m, r)``, as tensors on the memory of the parameters."""


class Growth(Protocol):
    """A signal whose parameters become more while it descends."""

    @property
    def length(self) -> float:
        """Mean length of a direction at the start."""

    def begin_(self, pulled: Tensor) -> None:
        """Start from ``A*(y)``, ``(K, n, m)``."""

    def grow_(self, dual: Callable[[], Tensor], settled: Tensor | None = None) -> bool:
        """Grow where it is due, and return whether it was; ``dual`` returns ``A*(ξ)``, ``(K, n, m)``.

        Problems that are ``settled``, ``(K,)`` bool, keep their size.
        """

    def prune_(self, k: int, limit: float) -> bool:
        """Drop the components of problem k below ``limit`` if there is a gap at it, and return whether there was."""


class Guided(Protocol):
    """A signal of a network whose input can hold an estimate of what it is to be."""

    def guide_by(self, estimates: Tensor) -> None:
        """Put estimates ``(K, *n)`` into the inputs, in place of a part of what is random there.

        The array is read at each iteration, and may change in between.
        """


class Perturbed(Protocol):
    """A signal that is random at each iteration.

    Attributes:
        prepared: arrays that :meth:`prepare` fills, which stay where they are until ``release``.
    """

    prepared: tuple[Tensor, ...]

    def calm_by(self, factors: Tensor) -> None:
        """Scale what is random by ``factors``, ``(K,)`` on the CPU.

        The array is read at each iteration, and may change in between.
        """

    def prepare(self, iteration: int) -> None:
        """Draw what is random at an iteration into :attr:`prepared`, from where ``forward`` takes it.

        Call it outside of CUDA graphs. It changes no result: ``forward`` draws by itself what is not prepared.
        """
