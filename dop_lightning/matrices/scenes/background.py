r"""The background of a scene: what its frames have in common, and how that changes.

Frames are columns of a matrix, ``y_f = median + b_f + s_f``: the background is the median frame and a low-rank part b,
such as lamps that go on and off; what moves is the corruption s. The low-rank part has few columns of its own,
``b_f = B·v_f``, so that it is enough to recover it from some frames and some pixels (Eqs. 3 and 6): the other pixels
follow from V, the other frames from B, each by itself (:func:`~dop_lightning.engine.robust_codes.robust_codes`).
Thousands of frames never lie in memory together.

Shapes: P entries of a frame (C·H·W), p of them looked at, F frames, f of them looked at, r the rank of b.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.robust_codes import robust_codes

MOST_COMPONENTS = 16
"""The largest of them alone are taken: the others are a hundredth of the background's change, and cost as much."""

NEGLIGIBLE = 1e-3
"""Singular values below this part of the largest belong to no component."""

ITERATIONS, SMALLEST = 25, 1e-4
"""Of the regression, for pictures: a level is 1/255."""

ENOUGH = 100
"""Frames that tell how an entry follows the background's change; ten a component where that is more."""

AT_ONCE = 2**22
"""Entries of the frames looked at that are made floats at once."""


@dataclass(frozen=True)
class Background:
    """A background, ready to be taken away from any frame of its scene.

    Attributes:
        median: ``(P,)``, in [0, 1].
        basis: B ``(P, r)``, whose part at the ``pixels`` is orthonormal.
        pixels: the entries looked at ``(p,)``; ``None`` for all.
        penalty: α/σ, ``(r,)``.
    """

    median: Tensor
    basis: Tensor
    pixels: Tensor | None
    penalty: Tensor

    @property
    def rank(self) -> int:
        """r."""
        return self.basis.shape[1]

    def codes(self, frames: Tensor) -> Tensor:
        """v of frames ``(F, P)``, ``(F, r)``."""
        if self.rank == 0:
            return frames.new_zeros(len(frames), 0)
        seen = slice(None) if self.pixels is None else self.pixels
        return robust_codes(
            frames[:, seen] - self.median[seen], self.basis[seen].mT, None, self.penalty, ITERATIONS, SMALLEST
        )

    def of(self, frames: Tensor) -> Tensor:
        """The background of frames ``(F, P)``, ``(F, P)`` in [0, 1]."""
        return (self.codes(frames) @ self.basis.mT).add_(self.median).clamp_(0, 1)


def median_frame(frames: np.ndarray, white: float) -> Tensor:
    """The median of each entry of frames ``(f, P)``, ``(P,)`` in [0, 1]; a part of the entries at a time."""
    parts = [np.median(frames[:, part], axis=0) for part in _parts(frames)]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32)) / white


def background_of(
    frames: np.ndarray, white: float, median: Tensor, low_rank: Tensor, alpha: float, pixels: Tensor | None
) -> Background:
    """The background of all entries, out of what was recovered of some.

    Args:
        frames: those looked at, ``(f, P)``, of any type.
        white: the value that is 1.
        median: of them, ``(P,)``.
        low_rank: what was recovered at the pixels looked at, ``(p, f)``.
        alpha: the ratio that it was recovered with.
        pixels: which those are, ``(p,)``; ``None`` for all.
    """
    left, values, right = torch.linalg.svd(low_rank, full_matrices=False)
    rank = int((values > NEGLIGIBLE * values[0]).sum()) if values[0] > NEGLIGIBLE else 0
    rank = min(rank, MOST_COMPONENTS)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    penalty = alpha / values
    if pixels is None or rank == 0:
        basis = left if pixels is None else median.new_zeros(len(median), 0)
        return Background(median, basis.contiguous(), pixels, penalty)
    basis = torch.empty(len(median), rank, dtype=median.dtype)
    every = max(1, len(frames) // max(ENOUGH, 10 * rank))
    some, right = frames[::every], right[:, ::every].contiguous()
    for part in _parts(some):
        rows = torch.from_numpy(some[:, part].T.astype(np.float32)) / white - median[part, None]  # entries × frames
        # of fewer frames the penalty is a smaller part; the codes are those of all
        basis[part] = robust_codes(rows, right, None, penalty / every, ITERATIONS, SMALLEST) / values
    basis[pixels] = left
    return Background(median, basis, pixels, penalty)


def _parts(frames: np.ndarray) -> Iterator[slice]:
    step = max(1, AT_ONCE // len(frames))
    for begin in range(0, frames.shape[1], step):
        yield slice(begin, min(begin + step, frames.shape[1]))
