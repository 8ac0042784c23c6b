"""Blurs that are known: out of focus, by a lens, by a motion, or by a kernel that was measured.

Shapes: images ``(C, H, W)``, kernels ``(h, w)`` with odd sides.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.model.operators import kernels
from dop_lightning.model.operators.boundary import BOUNDARIES, Boundary
from dop_lightning.model.operators.convolution import Convolution, convolved_shape
from dop_lightning.problems.problem import Attribute, ProblemBatch, Sensing


class Blurring(Sensing, ABC):
    """``y = k∗X``, each channel alone, with the same known kernel everywhere; see :class:`Convolution`.

    A subclass is a frozen dataclass with the fields of its kernel and ``boundary``, and writes :meth:`kernel_taps`.
    """

    boundary: Boundary

    @abstractmethod
    def kernel_taps(self) -> Tensor:
        """The kernel ``(h, w)``, float64, with the sum 1 and odd sides."""

    @property
    @abstractmethod
    def _settings(self) -> dict[str, Attribute]:
        """What tells this kernel from others of its kind."""

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, H, W)``, or with ``valid`` ``(C, H − h + 1, W − w + 1)``."""
        height, width = self.kernel_taps().shape
        return convolved_shape(tuple(signal_shape), (height, width), self.boundary)

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """The same, or with ``valid`` ``(C, H + h − 1, W + w − 1)``: what is beyond the observation as well."""
        if self.boundary != "valid" or len(observation_shape) != 3:
            return tuple(observation_shape)
        channels, *sides = observation_shape
        return (channels, *(side + taps - 1 for side, taps in zip(sides, self.kernel_taps().shape, strict=True)))

    def operator(self, problems: ProblemBatch) -> Convolution:
        """A of a batch."""
        return Convolution(problems, self.kernel_taps(), self.boundary)

    @property
    def slug(self) -> str:
        """Its name and the settings of its kernel, and the boundary where that is not the usual one."""
        settings = [value if isinstance(value, str) else f"{value:.12g}" for value in self._settings.values()]
        boundary = [] if self.boundary == "reflect" else [self.boundary]
        return "-".join([self.name, *settings, *boundary]).replace("_", "-")

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``sensing``, the settings of the kernel, and ``boundary``."""
        return {"sensing": self.name, **self._settings, "boundary": self.boundary}


@dataclass(frozen=True)
class GaussianBlur(Blurring):
    """A Gaussian kernel, cut at four standard deviations.

    Args:
        std: in pixels, above 0.
        boundary: ``reflect``, ``circular`` or ``valid``.

    Raises:
        ValueError: an argument is out of range.

    >>> GaussianBlur(1.5).slug, GaussianBlur(2, boundary="valid").slug
    ('gaussian-blur-1.5', 'gaussian-blur-2-valid')
    """

    std: float
    boundary: Boundary = "reflect"
    name: ClassVar[str] = "gaussian_blur"

    def __post_init__(self) -> None:
        positive("std", self.std)
        one_of("boundary", self.boundary, BOUNDARIES)

    def kernel_taps(self) -> Tensor:
        """``(h, h)`` with h = 2⌈4·std⌉ + 1."""
        return kernels.outer(kernels.gaussian(self.std))

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_std": self.std}


@dataclass(frozen=True)
class BoxBlur(Blurring):
    """The mean of a square of pixels.

    Args:
        width: of the square, odd, at least 1.
        boundary: ``reflect``, ``circular`` or ``valid``.

    Raises:
        ValueError: an argument is out of range.
    """

    width: int
    boundary: Boundary = "reflect"
    name: ClassVar[str] = "box_blur"

    def __post_init__(self) -> None:
        if at_least("width", self.width, 1) % 2 == 0:
            raise ValueError(f"width must be odd, got {self.width}")
        one_of("boundary", self.boundary, BOUNDARIES)

    def kernel_taps(self) -> Tensor:
        """``(width, width)``."""
        return kernels.outer(kernels.box(self.width))

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_width": self.width}


@dataclass(frozen=True)
class MotionBlur(Blurring):
    """A straight, even motion of the camera while the picture was taken.

    Args:
        length: of the path in pixels, at least 1.
        angle: in degrees, counter-clockwise from «to the right».
        boundary: ``reflect``, ``circular`` or ``valid``.

    Raises:
        ValueError: an argument is out of range.
    """

    length: float
    angle: float = 0.0
    boundary: Boundary = "reflect"
    name: ClassVar[str] = "motion_blur"

    def __post_init__(self) -> None:
        if positive("length", self.length) < 1:
            raise ValueError(f"length must be at least 1 pixel, got {self.length}")
        if not torch.isfinite(torch.tensor(float(self.angle))):
            raise ValueError(f"angle must be finite, got {self.angle}")
        one_of("boundary", self.boundary, BOUNDARIES)

    def kernel_taps(self) -> Tensor:
        """As large as the path needs."""
        return kernels.motion(self.length, self.angle)

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_length": self.length, "blur_angle": self.angle}


@dataclass(frozen=True)
class Blur(Blurring):
    """A kernel of one's own, which is divided by its sum.

    Args:
        kernel: its rows, or a file: an image of a point of light, black around it, or a ``.npy`` array. Odd sides; the
            middle is the centre.
        boundary: ``reflect``, ``circular`` or ``valid``.

    Attributes:
        digest: of the taps; names the kernel.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an argument is out of range.
    """

    kernel: list[list[float]] | str | Path = field(repr=False, compare=False)
    boundary: Boundary = "reflect"
    taps: tuple[tuple[float, ...], ...] = field(init=False, repr=False)
    digest: str = field(init=False)
    name: ClassVar[str] = "blur"

    def __post_init__(self) -> None:
        one_of("boundary", self.boundary, BOUNDARIES)
        if isinstance(self.kernel, str | Path):
            name, taps = str(self.kernel), kernels.read_kernel(self.kernel)
        else:
            name, taps = "kernel", _array(self.kernel)
        taps = kernels.checked(taps, name)
        object.__setattr__(self, "taps", tuple(tuple(row) for row in taps.tolist()))
        object.__setattr__(self, "digest", hashlib.sha256(taps.contiguous().numpy().tobytes()).hexdigest()[:8])

    def kernel_taps(self) -> Tensor:
        """``(h, w)``."""
        return torch.tensor(self.taps, dtype=torch.float64, device="cpu")

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_kernel": f"{len(self.taps)}x{len(self.taps[0])}-{self.digest}"}


def _array(rows: Sequence[Sequence[float]]) -> Tensor:
    try:
        return torch.tensor(rows, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError) as error:
        raise ValueError(f"kernel must be rows of as many numbers each, got {rows!r:.60}") from error
