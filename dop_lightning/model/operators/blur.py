"""Known blurs: Gaussian, box and motion blur, and measured kernels.

Shapes: images are ``(C, H, W)``, kernels ``(h, w)`` with odd sides.
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
    """Base class of blurs ``y = k∗X`` with a known, uniform kernel, applied to each channel; see :class:`Convolution`.

    Subclasses are frozen dataclasses with the fields of their kernel and ``boundary``, and implement
    :meth:`kernel_taps`.
    """

    boundary: Boundary

    @abstractmethod
    def kernel_taps(self) -> Tensor:
        """Return the kernel ``(h, w)`` in float64, with sum 1 and odd sides."""

    @property
    @abstractmethod
    def _settings(self) -> dict[str, Attribute]:
        """Settings that identify the kernel."""

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(C, H, W)``, or ``(C, H − h + 1, W − w + 1)`` for the boundary ``valid``."""
        height, width = self.kernel_taps().shape
        return convolved_shape(tuple(signal_shape), (height, width), self.boundary)

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the same shape, or ``(C, H + h − 1, W + w − 1)`` for ``valid``, beyond the observation."""
        if self.boundary != "valid" or len(observation_shape) != 3:
            return tuple(observation_shape)
        channels, *sides = observation_shape
        return (channels, *(side + taps - 1 for side, taps in zip(sides, self.kernel_taps().shape, strict=True)))

    def operator(self, problems: ProblemBatch) -> Convolution:
        """Return the operator A of a batch."""
        return Convolution(problems, self.kernel_taps(), self.boundary)

    @property
    def slug(self) -> str:
        """Name, settings of the kernel, and the boundary if it is not ``reflect``."""
        settings = [value if isinstance(value, str) else f"{value:.12g}" for value in self._settings.values()]
        boundary = [] if self.boundary == "reflect" else [self.boundary]
        return "-".join([self.name, *settings, *boundary]).replace("_", "-")

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Columns for tables: ``sensing``, the settings of the kernel, and ``boundary``."""
        return {"sensing": self.name, **self._settings, "boundary": self.boundary}


@dataclass(frozen=True)
class GaussianBlur(Blurring):
    """Gaussian blur, truncated at four standard deviations.

    Args:
        std: standard deviation in pixels, above 0.
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
        """Return the kernel ``(h, h)`` with h = 2⌈4·std⌉ + 1."""
        return kernels.outer(kernels.gaussian(self.std))

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_std": self.std}


@dataclass(frozen=True)
class BoxBlur(Blurring):
    """Box blur, the mean over a square of pixels.

    Args:
        width: width of the square, odd, at least 1.
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
        """Return the kernel ``(width, width)``."""
        return kernels.outer(kernels.box(self.width))

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_width": self.width}


@dataclass(frozen=True)
class MotionBlur(Blurring):
    """Blur by a linear motion of the camera at constant speed.

    Args:
        length: length of the path in pixels, at least 1.
        angle: direction in degrees, counter-clockwise; 0 is to the right.
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
        """Return the kernel, which is as large as the path requires."""
        return kernels.motion(self.length, self.angle)

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_length": self.length, "blur_angle": self.angle}


@dataclass(frozen=True)
class Blur(Blurring):
    """Blur with a custom kernel, which is normalised to sum 1.

    Args:
        kernel: rows of the kernel, or a file: an image of a point source on a black background, or a ``.npy`` array.
            Its sides must be odd; its middle is the centre.
        boundary: ``reflect``, ``circular`` or ``valid``.

    Attributes:
        digest: hash of the taps, which identifies the kernel.

    Raises:
        FileNotFoundError: the file does not exist.
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
            name, taps = "kernel", _kernel_array(self.kernel)
        taps = kernels.checked(taps, name)
        object.__setattr__(self, "taps", tuple(tuple(row) for row in taps.tolist()))
        object.__setattr__(self, "digest", hashlib.sha256(taps.contiguous().numpy().tobytes()).hexdigest()[:8])

    def kernel_taps(self) -> Tensor:
        """Return the kernel ``(h, w)``."""
        return torch.tensor(self.taps, dtype=torch.float64, device="cpu")

    @property
    def _settings(self) -> dict[str, Attribute]:
        return {"blur_kernel": f"{len(self.taps)}x{len(self.taps[0])}-{self.digest}"}


def _kernel_array(rows: Sequence[Sequence[float]]) -> Tensor:
    try:
        return torch.tensor(rows, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError) as error:
        raise ValueError(f"kernel must be a list of rows of equal length, got {rows!r:.60}") from error
