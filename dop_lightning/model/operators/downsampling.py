"""Fewer pixels of an image: super-resolution is the way back.

Shapes: images ``(C, H, W)``, observations ``(C, H/f, W/f)``.
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
    """``y = (k∗X)↓f``: a filter against aliasing at the centre of every f×f block, mirrored beyond the edge.

    A signal must have sides that are multiples of f; a photograph of one's own is recovered f times as large, so that
    it always has.

    Args:
        factor: f, at least 2.
        filter: ``bicubic`` (what Pillow and MATLAB reduce images by), ``gaussian`` (standard deviation f/2) or ``box``
            (the mean of the block, as of larger sensors).

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
        """The filter ``(h, h)``, float64, of the parity of f and at least as wide."""
        if self.filter == "box":
            return kernels.outer(kernels.box(self.factor))
        if self.filter == "gaussian":
            return kernels.outer(kernels.gaussian(self.factor / 2, self.factor))
        return kernels.outer(kernels.bicubic(self.factor))

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, H/f, W/f)``."""
        height, width = self.kernel_taps().shape
        return convolved_shape(tuple(signal_shape), (height, width), "reflect", self.factor)

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, f·H', f·W')``."""
        if len(observation_shape) != 3:
            raise ValueError(f"{self} makes images, C×H×W, got an observation of shape {tuple(observation_shape)}")
        channels, height, width = observation_shape
        return (channels, height * self.factor, width * self.factor)

    def operator(self, problems: ProblemBatch) -> Convolution:
        """A of a batch."""
        return Convolution(problems, self.kernel_taps(), "reflect", self.factor)

    @property
    def slug(self) -> str:
        """Its name, the factor and the filter.

        >>> Downsampling(3, "box").slug
        'downsampling-3-box'
        """
        return f"{self.name}-{self.factor}-{self.filter}"

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``sensing``, ``factor`` and ``filter``."""
        return {"sensing": self.name, "factor": self.factor, "filter": self.filter}
