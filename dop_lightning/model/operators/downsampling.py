"""Downsampling of images, for super-resolution.

Shapes: images are ``(C, H, W)``, observations ``(C, H/f, W/f)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.model.operators import kernels
from dop_lightning.model.operators.convolution import Convolution, convolved_shape
from dop_lightning.problems.problem import Attribute, ProblemBatch, Sensing

Filter = Literal["bicubic", "gaussian", "box"]


@dataclass(frozen=True)
class Downsampling(Sensing):
    """``y = (k∗X)↓f``: an anti-aliasing filter centred at every f×f block, with reflection at the edge.

    The sides of a signal must be multiples of f. This always holds for your own photographs, which are recovered f
    times as large.

    Args:
        factor: factor f, at least 2.
        filter: ``bicubic`` (as Pillow and MATLAB reduce images), ``gaussian`` (standard deviation f/2) or ``box`` (the
            mean of the block, as with larger sensor pixels).

    Raises:
        ValueError: an argument is out of range.

    >>> Downsampling(2).observation_shape((3, 10, 8)), Downsampling(2).signal_shape((3, 5, 4))
    ((3, 5, 4), (3, 10, 8))
    """

    factor: int = 2
    filter: Filter = "bicubic"
    name: ClassVar[str] = "downsampling"

    def __post_init__(self) -> None:
        at_least("factor", self.factor, 2)
        one_of("filter", self.filter, ("bicubic", "gaussian", "box"))

    def kernel_taps(self) -> Tensor:
        """Return the filter ``(h, h)`` in float64, where h has the parity of f and is at least f."""
        if self.filter == "box":
            return kernels.outer(kernels.box(self.factor))
        if self.filter == "gaussian":
            return kernels.outer(kernels.gaussian(self.factor / 2, self.factor))
        return kernels.outer(kernels.bicubic(self.factor))

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(C, H/f, W/f)``."""
        height, width = self.kernel_taps().shape
        return convolved_shape(tuple(signal_shape), (height, width), "reflect", self.factor)

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(C, f·H', f·W')``."""
        if len(observation_shape) != 3:
            raise ValueError(f"{self} requires images, C×H×W, got an observation of shape {tuple(observation_shape)}")
        channels, height, width = observation_shape
        return (channels, height * self.factor, width * self.factor)

    def operator(self, problems: ProblemBatch) -> Convolution:
        """Return the operator A of a batch."""
        return Convolution(problems, self.kernel_taps(), "reflect", self.factor)

    @property
    def slug(self) -> str:
        """Name, factor and filter.

        >>> Downsampling(3, "box").slug
        'downsampling-3-box'
        """
        return f"{self.name}-{self.factor}-{self.filter}"

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Columns for tables: ``sensing``, ``factor`` and ``filter``."""
        return {"sensing": self.name, "factor": self.factor, "filter": self.filter}
