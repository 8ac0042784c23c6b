"""The interfaces of classical filters of images, in NumPy, see :class:`~dop_lightning.engine.rivals.FilterMethod`.

Shapes: an image ``(C, H, W)``, float64, whose range is [0, 1]; one channel ``(H, W)``.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dop_lightning.engine.state import AdvanceInterrupted
from dop_lightning.foundation.signatures import require_result
from dop_lightning.problems.problem import Problem, scale

Image = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Restored(NamedTuple):
    """What a filter makes of a problem.

    Attributes:
        signal: X̂, ``(C, H, W)``.
        probability: of each entry that it is corrupted, ``(C, H, W)``, if the filter estimates it.
    """

    signal: Tensor
    probability: Tensor | None = None


class RestorationInterrupted(AdvanceInterrupted):
    """Raised in a filter at work: by a signal handler in the main thread, elsewhere by :meth:`ImageFilter.poll`."""


class ImageFilter(ABC):
    """Restores one image without iterations. Its arguments are kept as attributes under their own names.

    Attributes:
        largest_abreast: pixels up to which tiles are restored side by side, one thread each; 0 if the filter is not
            thread-safe.
        uses_undamaged: whether it uses ``undamaged`` of problems, which are refused otherwise.
        is_interrupted: whether the filter is to stop at the next :meth:`poll`.
    """

    largest_abreast: ClassVar[int] = 0
    uses_undamaged: ClassVar[bool] = False
    is_interrupted: bool = False

    def poll(self) -> None:
        """Stop if the filter is interrupted; to be called at least every second.

        Raises:
            RestorationInterrupted: it is.
        """
        if self.is_interrupted:
            raise RestorationInterrupted

    @abstractmethod
    def restore(self, image: Image, missing: Flags) -> Image:
        """Return the restored image ``(C, H, W)``.

        Args:
            image: ``(C, H, W)``, 0 and 1 the ends of its range; not to be changed.
            missing: ``(C, H, W)``, entries that were not observed, whose values mean nothing.
        """

    @property
    def name(self) -> str:
        """A short text for tables of settings."""
        return type(self).__name__

    def restored(self, problem: Problem) -> Restored:
        """Return the result of :meth:`restore` in units of the problem; override it to use more of the problem.

        Args:
            problem: an image on the CPU.

        Raises:
            ValueError: the result has another shape.
        """
        width = scale(problem)
        image = problem.observation.detach().cpu().to(torch.float64).contiguous().numpy() / width
        missing = np.zeros(image.shape, dtype=bool)
        if problem.mask is not None:
            missing = ~problem.mask.cpu().contiguous().numpy()
        found = require_result(self.restore(image, missing), np.ndarray, self.restore)
        if found.shape != image.shape:
            raise ValueError(
                f"{type(self).__name__}.restore must return an image of shape {image.shape}, got {found.shape}"
            )
        return Restored(torch.from_numpy(np.ascontiguousarray(found, dtype=np.float64) * width))


class Detector(ABC):
    """Finds the corrupted entries of an image."""

    @abstractmethod
    def corrupted(self, image: Image, missing: Flags) -> Flags:
        """Return which entries are corrupted, ``(C, H, W)``.

        Args:
            image: ``(C, H, W)``.
            missing: ``(C, H, W)``, entries that were not observed; the result has any value there.
        """


class Filler(ABC):
    """Fills missing entries of an image from the others, channel by channel."""

    @abstractmethod
    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return ``(H, W)`` with estimates at the missing entries; the others may have any value.

        Args:
            channel: ``(H, W)``; 0 where it is missing; not to be changed.
            missing: ``(H, W)``, at least one entry and not all.
        """

    def fill(self, image: Image, missing: Flags) -> Image:
        """Return the image with its missing entries filled, clipped to [0, 1]; the others keep their values.

        A channel without any known entry becomes the mean of the known entries of the image, 0.5 if there are none.

        Args:
            image: ``(C, H, W)``.
            missing: ``(C, H, W)``.

        Raises:
            ValueError: the shapes differ.
        """
        if image.ndim != 3 or image.shape != missing.shape:
            raise ValueError(f"missing must have the shape of the image, {image.shape}, got {missing.shape}")
        filled = np.where(missing, 0.0, image)
        for channel, holes, source in zip(filled, missing, image, strict=True):
            if holes.all():
                known = image[~missing]
                channel[:] = known.mean() if known.size else 0.5
            elif holes.any():
                estimate = self.fill_channel(np.where(holes, 0.0, source), holes)
                channel[holes] = np.clip(estimate[holes], 0.0, 1.0)
        return filled


def optional(module: str, package: str, user: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: such as ``skimage.restoration``.
        package: as pip knows it.
        user: the class that needs it, for the error.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f'{user} needs {package}: pip install "dop_lightning[rivals]"') from error
