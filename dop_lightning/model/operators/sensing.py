"""Settings of measurements of a signal by m numbers, from which the operator A of a batch is created."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.model.operators.commuting_sensing import CommutingSensing
from dop_lightning.model.operators.gaussian_sensing import GaussianSensing, Storage, square_side
from dop_lightning.problems.problem import Attribute, ProblemBatch, Sensing


@dataclass(frozen=True)
class Measurements(Sensing, ABC):
    """Base class of measurements by m numbers.

    Args:
        measurements: m, at least 1.

    Raises:
        ValueError: m is out of range.
    """

    measurements: int

    def __post_init__(self) -> None:
        at_least("measurements", self.measurements, 1)

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(m,)``."""
        return (self.measurements,)

    @property
    def slug(self) -> str:
        """Name and m.

        >>> GaussianMeasurements(300).slug, GaussianMeasurements(300, symmetric=True).slug
        ('gaussian-300', 'symmetric-gaussian-300')
        """
        return f"{self.name}-{self.measurements}".replace("_", "-")

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Columns for tables: ``sensing`` and ``measurements``.

        >>> CommutingMeasurements(50).attributes
        {'sensing': 'commuting', 'measurements': 50}
        """
        return {"sensing": self.name, "measurements": self.measurements}


@dataclass(frozen=True)
class GaussianMeasurements(Measurements):
    """``yᵢ = ⟨Aᵢ, X⟩`` with Gaussian Aᵢ, see :class:`GaussianSensing`. X may have any shape.

    Args:
        measurements: m, at least 1.
        symmetric: whether all Aᵢ are symmetric; for square matrices.
        storage: whether A is kept in memory (``dense``), redrawn at every use (``seeds``), or kept up to 1 GiB
            (``auto``); A is the same.

    Raises:
        ValueError: an argument is out of range.
    """

    symmetric: bool = False
    storage: Storage = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("storage", self.storage, ("auto", "dense", "seeds"))

    @property
    def name(self) -> str:  # type: ignore[override]
        """``gaussian`` or ``symmetric_gaussian``."""
        return "symmetric_gaussian" if self.symmetric else "gaussian"

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(m,)``. If ``symmetric`` is set, the signal must be a square matrix."""
        if self.symmetric:
            square_side(tuple(signal_shape), "symmetric measurements")
        return super().observation_shape(signal_shape)

    def operator(self, problems: ProblemBatch) -> GaussianSensing:
        """Return the operator A of a batch."""
        return GaussianSensing(problems, self.symmetric, self.storage)


@dataclass(frozen=True)
class CommutingMeasurements(Measurements):
    """``yᵢ = ⟨Aᵢ, X⟩`` with commuting symmetric Aᵢ, see :class:`CommutingSensing`. X must be a square matrix.

    Args:
        measurements: m, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    name: ClassVar[str] = "commuting"

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(m,)``."""
        square_side(tuple(signal_shape), "commuting measurements")
        return super().observation_shape(signal_shape)

    def operator(self, problems: ProblemBatch) -> CommutingSensing:
        """Return the operator A of a batch."""
        return CommutingSensing(problems)
