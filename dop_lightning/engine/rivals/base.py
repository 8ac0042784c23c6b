"""Interfaces of classical image filters in NumPy, see :class:`~dop_lightning.engine.rivals.FilterMethod`.

Shapes: an image ``(C, H, W)``, float64, with range [0, 1]; one channel ``(H, W)``.
"""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dop_lightning.engine.state import AdvanceInterrupted
from dop_lightning.foundation.renamed import RenamedAttribute, rename_overrides
from dop_lightning.foundation.signatures import require_result
from dop_lightning.problems.problem import Problem, scale

Image = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Restored(NamedTuple):
    """Result of a filter for one problem.

    Attributes:
        signal: X̂, ``(C, H, W)``.
        probability: probability that each entry is corrupted, ``(C, H, W)``; ``None`` if the filter does not estimate
            it.
    """

    signal: Tensor
    probability: Tensor | None = None


class RestorationInterrupted(AdvanceInterrupted):
    """Raised inside a running filter: by a signal handler in the main thread, otherwise by :meth:`ImageFilter.poll`."""


class ImageFilter(ABC):
    """Filter that restores one image without iterations. Arguments are stored as attributes of the same names.

    Attributes:
        max_concurrent_pixels: maximum number of pixels up to which tiles are restored in parallel, one thread per tile;
            0 if the filter is not thread-safe.
        uses_undamaged: whether the filter uses ``undamaged`` of problems; otherwise, problems that have it are refused.
        is_interrupted: whether the filter must stop at the next :meth:`poll`.
    """

    max_concurrent_pixels: ClassVar[int] = 0
    uses_undamaged: ClassVar[bool] = False
    is_interrupted: bool = False

    def poll(self) -> None:
        """Stop if the filter is interrupted. Call this at least once per second.

        Raises:
            RestorationInterrupted: the filter is interrupted.
        """
        if self.is_interrupted:
            raise RestorationInterrupted

    @abstractmethod
    def restore(self, image: Image, missing: Flags) -> Image:
        """Restore an image and return the result, ``(C, H, W)``.

        Args:
            image: ``(C, H, W)``, with range [0, 1]; must not be modified.
            missing: ``(C, H, W)``, true for unobserved entries, whose values are arbitrary.
        """

    @property
    def name(self) -> str:
        """Short name for tables of settings."""
        return type(self).__name__

    def restored(self, problem: Problem) -> Restored:
        """Return the result of :meth:`restore` in units of the problem. Override it to use more of the problem.

        Args:
            problem: an image on the CPU.

        Raises:
            ValueError: the result of :meth:`restore` has a wrong shape.
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

    # Old names, until version 0.3.
    largest_abreast = RenamedAttribute("max_concurrent_pixels")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept the old names, until version 0.3."""
        super().__init_subclass__(**kwargs)
        rename_overrides(cls, {"largest_abreast": "max_concurrent_pixels"})


class Detector(ABC):
    """Detector of the corrupted entries of an image."""

    @abstractmethod
    def corrupted(self, image: Image, missing: Flags) -> Flags:
        """Return a mask of the corrupted entries, ``(C, H, W)``.

        Args:
            image: ``(C, H, W)``.
            missing: ``(C, H, W)``, true for unobserved entries; the result is arbitrary there.
        """


class Filler(ABC):
    """Fill missing entries of an image from the others, channel by channel."""

    @abstractmethod
    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return ``(H, W)`` with estimates at the missing entries; the other values are ignored.

        Args:
            channel: ``(H, W)``, with 0 at missing entries; must not be modified.
            missing: ``(H, W)``; true for at least one entry, but not all.
        """

    def fill(self, image: Image, missing: Flags) -> Image:
        """Return the image with missing entries filled and clipped to [0, 1]; other values are unchanged.

        A channel without known entries is set to the mean of the known entries of the image, or 0.5 if there are none.

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
        module: name of the module, such as ``skimage.restoration``.
        package: name of the package for pip.
        user: name of the class that requires it, for the error message.

    Raises:
        ImportError: the package is not installed; the message contains the command to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f'{user} requires {package}: pip install "dop_lightning[rivals]"') from error
