"""What all kinds of frames have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np


class Frames(ABC):
    """Frames of one size, which can be gone through as often as one likes, without all of them being in memory.

    Attributes:
        path: the video or the folder.
        shape: ``(C, H, W)``.
        dtype: ``uint8`` (0 … 255) of 8-bit files, else ``float32`` (0 … 1).
        rate: frames a second.
        trouble: what is to be told of the file though its frames can be read; known when they have been counted.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    rate: Fraction = Fraction(25)
    trouble: str = ""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]:
        """Frame after frame, ``(C, H, W)`` of :attr:`dtype`.

        Raises:
            ValueError: one cannot be read, or has another size than the first.
        """

    @abstractmethod
    def frame_name(self, index: int) -> str:
        """What the file of a frame is called, without suffix."""

    @property
    def white(self) -> float:
        """The largest value."""
        return 255.0 if self.dtype == np.uint8 else 1.0

    def chosen(self, indices: Sequence[int]) -> np.ndarray:
        """Some frames, ``(F, C, H, W)``, of rising indices."""
        wanted = {index: place for place, index in enumerate(indices)}
        frames = np.empty((len(indices), *self.shape), dtype=self.dtype)
        for index, frame in enumerate(self):
            if index in wanted:
                frames[wanted[index]] = frame
        return frames
