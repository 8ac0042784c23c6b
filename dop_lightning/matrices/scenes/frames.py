"""Common interface of all sources of frames."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np


class Frames(ABC):
    """Frames of equal size. They can be iterated any number of times, and are not all kept in memory.

    Attributes:
        path: the video or the folder.
        shape: ``(C, H, W)``.
        dtype: ``uint8`` (0 … 255) for 8-bit files, otherwise ``float32`` (0 … 1).
        rate: frames per second.
        trouble: warning about the file if its frames can be read but something is wrong; set once the frames have been
            counted.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    rate: Fraction = Fraction(25)
    trouble: str = ""

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each frame, ``(C, H, W)`` of :attr:`dtype`.

        Raises:
            ValueError: a frame cannot be read, or its size differs from that of the first.
        """

    @abstractmethod
    def frame_name(self, index: int) -> str:
        """Return the file name of a frame, without suffix."""

    @property
    def white(self) -> float:
        """Largest possible value."""
        return 255.0 if self.dtype == np.uint8 else 1.0

    def chosen(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames with the given ascending indices, ``(F, C, H, W)``."""
        wanted = {index: place for place, index in enumerate(indices)}
        frames = np.empty((len(indices), *self.shape), dtype=self.dtype)
        for index, frame in enumerate(self):
            if index in wanted:
                frames[wanted[index]] = frame
        return frames
