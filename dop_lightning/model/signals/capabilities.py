"""Optional abilities of signals beyond ``φ(θ)`` and its gradient, which the engine queries by name.

The property of an ability that a signal lacks is ``None``, see :class:`~dop_lightning.model.signals.base.Signal`. The
engine does not check the class of a signal, so that custom signals can have all abilities.

Shapes: K problems, n rows, m columns, r columns of the factors.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Factors(Protocol):
    """Signal that is a product of two factors, ``X = left·rightᵀ``.

    Attributes:
        symmetric: whether both factors are the same array, so that X is positive semidefinite.
    """

    symmetric: bool

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Factors ``(K, n, r)`` and ``(K, m, r)``, as tensors that share memory with the parameters."""


class Growth(Protocol):
    """Signal whose number of parameters increases during optimization."""

    @property
    def length(self) -> float:
        """Mean initial length of a direction."""

    def begin_(self, pulled: Tensor) -> None:
        """Initialize from ``A*(y)``, ``(K, n, m)``."""

    def grow_(self, dual: Callable[[], Tensor], settled: Tensor | None = None) -> bool:
        """Grow all problems that require it, and return whether any did.

        Args:
            dual: function that returns ``A*(ξ)``, ``(K, n, m)``.
            settled: boolean ``(K,)``, true for problems that keep their size; ``None`` if there are none.
        """

    def prune_(self, k: int, limit: float) -> bool:
        """Drop the components of problem k below ``limit`` if the spectrum has a gap there; return whether it has."""


class Guided(Protocol):
    """Signal of a network whose input can contain an estimate of the signal."""

    def guide_by(self, estimates: Tensor) -> None:
        """Replace a part of the random inputs by estimates ``(K, *n)``.

        The array may be changed between iterations, in place and by operations of PyTorch, which count its changes.
        """


class Perturbed(Protocol):
    """Signal with random numbers at each iteration.

    Attributes:
        prepared: arrays that :meth:`prepare` fills, which keep their memory until ``release``.
    """

    prepared: tuple[Tensor, ...]

    def scale_perturbation(self, factors: Tensor) -> None:
        """Scale the random perturbation by ``factors``, ``(K,)`` on the CPU.

        The array is read at each iteration, and may change between iterations.
        """

    def prepare(self, iteration: int) -> None:
        """Draw the random numbers of an iteration into :attr:`prepared`, from which ``forward`` reads them.

        Call it outside of CUDA graphs. It does not change results: ``forward`` draws all numbers that are not prepared.
        """
