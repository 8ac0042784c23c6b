"""Connected components of the masks of many frames at once.

A mask is represented by its runs: maximal sequences of consecutive set pixels in a row. There are far fewer runs than
pixels, and all steps are array operations. Shapes: F frames of H × W pixels, N runs.
"""

from typing import NamedTuple, Self

import numpy as np


class Runs(NamedTuple):
    """Runs of masks, ordered by frame, row and column.

    Attributes:
        start: position of the first pixel in the padded masks, int64 ``(N,)``.
        end: position after the last pixel in the padded masks, int64 ``(N,)``.
        shape: ``(F, H, W)``.
    """

    start: np.ndarray
    end: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, masks: np.ndarray) -> Self:
        """Return the runs of masks, bool ``(F, H, W)``.

        >>> runs = Runs.of(np.array([[[1, 1, 0], [0, 1, 1]]], dtype=bool))
        >>> (runs.end - runs.start).tolist()
        [2, 2]
        """
        count, height, width = masks.shape
        padded = np.zeros((count, height + 1, width + 2), dtype=np.int8)
        padded[:, :height, 1 : width + 1] = masks
        flat = padded.ravel()
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        return cls(edges[::2], edges[1::2], (count, height, width))

    @property
    def frame(self) -> np.ndarray:
        """Frame index of each run, ``(N,)``."""
        _, height, width = self.shape
        return self.start // ((height + 1) * (width + 2))

    def mask(self, kept: np.ndarray) -> np.ndarray:
        """Return the masks of the runs with true ``kept``, ``(N,)``, as bool ``(F, H, W)``."""
        count, height, width = self.shape
        steps = np.zeros(count * (height + 1) * (width + 2), dtype=np.int8)
        steps[self.start[kept]] = 1
        steps[self.end[kept]] = -1
        inside = np.cumsum(steps, dtype=np.int8).view(bool).reshape(count, height + 1, width + 2)
        return np.ascontiguousarray(inside[:, :height, 1 : width + 1])

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Return the number of pixels of each run that are set in ``values``, bool ``(F, H, W)``, as int64 ``(N,)``."""
        _, height, width = self.shape
        rows, columns = np.divmod(np.flatnonzero(values), width)
        frames, rows = np.divmod(rows, height)
        places = (frames * (height + 1) + rows) * (width + 2) + columns + 1
        return np.searchsorted(places, self.end) - np.searchsorted(places, self.start)

    def _overlapping(self, stride: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of runs whose second run, shifted back by ``stride``, is at most ``reach`` from the first."""
        first = np.searchsorted(self.end - stride, self.start - reach, side="right")
        last = np.searchsorted(self.start - stride, self.end + reach, side="left")
        pairs = np.maximum(last - first, 0)
        one = np.repeat(np.arange(len(self.start)), pairs)
        offsets = np.arange(len(one)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        return one, np.repeat(first, pairs) + offsets

    def components(self) -> np.ndarray:
        """Return the index of the component of each run, from 0, ``(N,)``, by 8-connectivity within each frame.

        >>> Runs.of(np.array([[[1, 0, 0, 1], [0, 1, 0, 1]]], dtype=bool)).components().tolist()
        [0, 1, 0, 1]
        """
        one, other = self._overlapping(self.shape[2] + 2, reach=1)
        numbers = np.arange(len(self.start))
        while True:
            of_one, of_other = numbers[one], numbers[other]
            if np.array_equal(of_one, of_other):
                return np.unique(numbers, return_inverse=True)[1]
            np.minimum.at(numbers, np.maximum(of_one, of_other), np.minimum(of_one, of_other))
            while not np.array_equal(numbers[numbers], numbers):
                numbers = numbers[numbers]

    def touching(self) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of runs in consecutive frames that share a pixel, ``(M,)`` each, the earlier run first."""
        _, height, width = self.shape
        return self._overlapping((height + 1) * (width + 2), reach=0)
