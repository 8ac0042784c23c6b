r"""The background of a scene: what its frames have in common, and how that changes.

Frames are columns of a matrix, ``y_f = median + b_f + s_f``: the background is the median frame and a low-rank part b,
such as lamps that go on and off; what moves is the corruption s. The low-rank part has few columns of its own,
``b_f = B·v_f``, so that it is enough to recover it from some frames and some pixels (Eqs. 3 and 6): the other pixels
follow from V, the other frames from B, each by itself (:func:`~dop_lightning.matrices.scenes.regression.huber_codes`).
Thousands of frames never lie in memory together.

Shapes: P entries of a frame (C·H·W), p of them looked at, F frames, f of them looked at, r the rank of b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.robust_codes import robust_codes
from dop_lightning.matrices.scenes.regression import huber_codes, robust_deviation

MOST_COMPONENTS = 16
"""The largest of them alone are taken: the others are a hundredth of the background's change, and cost as much."""

NEGLIGIBLE = 1e-3
"""Singular values below this part of the largest belong to no component."""

ITERATIONS, SMALLEST = 25, 1e-4
"""Of least absolute deviations, for pictures: a level is 1/255."""

ENOUGH = 100
"""Frames from which the entries that were not looked at, and the noise, are estimated; six per component if more."""

LEVEL = 1 / 255
"""The smallest noise that is assumed: 8-bit frames are rounded to it, and compression removes what is below."""

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
        noise: robust standard deviation of ``y − median − Bv`` of each entry over the frames, ``(P,)``, at least 1/255.
        known: v ``(r,)`` of the frames looked at, by the number of the frame.
    """

    median: Tensor
    basis: Tensor
    pixels: Tensor | None
    penalty: Tensor
    noise: Tensor
    known: dict[int, Tensor] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """r."""
        return self.basis.shape[1]

    def codes(self, frames: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """Return v of frames ``(F, P)``, ``(F, r)``.

        Small frames, of which all entries were looked at, have it from least absolute deviations, see
        :func:`~dop_lightning.engine.robust_codes.robust_codes`. Of larger ones, the frames looked at have it from the
        separation, and the others from :func:`~dop_lightning.matrices.scenes.regression.huber_codes`.

        Args:
            frames: the frames in [0, 1].
            numbers: of the frames; ``None`` where they are not known.
        """
        if self.rank == 0:
            return frames.new_zeros(len(frames), 0)
        if self.pixels is None:
            return robust_codes(frames - self.median, self.basis.mT, None, self.penalty, ITERATIONS, SMALLEST)
        known = [self.known.get(number) for number in numbers] if numbers else [None] * len(frames)
        new = [place for place, code in enumerate(known) if code is None]
        result = frames.new_zeros(len(frames), self.rank)
        if new:
            rows = frames[new][:, self.pixels] - self.median[self.pixels]
            noise = float(self.noise[self.pixels].median())
            result[new] = huber_codes(rows, self.basis[self.pixels].mT.contiguous(), noise, self.penalty)
        for place, code in enumerate(known):
            if code is not None:
                result[place] = code
        return result

    def of(self, frames: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """Return the background of frames ``(F, P)`` with these numbers, ``(F, P)`` in [0, 1]; see :meth:`codes`."""
        return torch.addmm(self.median, self.codes(frames, numbers), self.basis.mT).clamp_(0, 1)


def median_frame(frames: np.ndarray, white: float) -> Tensor:
    """Return the median of each entry of frames ``(f, P)``, ``(P,)`` in [0, 1]; a part of the entries at a time."""
    parts = [np.median(frames[:, part], axis=0) for part in _parts(frames)]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32)) / white


def background_of(
    frames: np.ndarray,
    white: float,
    median: Tensor,
    low_rank: Tensor,
    alpha: float,
    pixels: Tensor | None,
    numbers: Sequence[int] = (),
) -> Background:
    """Return the background of all entries, given what was recovered of some.

    Args:
        frames: those looked at, ``(f, P)``, of any type.
        white: the value that is 1.
        median: of them, ``(P,)``.
        low_rank: what was recovered at the pixels looked at, ``(p, f)``.
        alpha: the ratio that it was recovered with.
        pixels: which those are, ``(p,)``; ``None`` for all.
        numbers: of the frames looked at, ``f`` of them; empty where they are not known.
    """
    left, values, right = torch.linalg.svd(low_rank, full_matrices=False)
    rank = int((values > NEGLIGIBLE * values[0]).sum()) if values[0] > NEGLIGIBLE else 0
    rank = min(rank, MOST_COMPONENTS)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    codes = (right * values[:, None]).mT.contiguous()  # f × r
    every = max(1, len(frames) // max(ENOUGH, 6 * rank))
    some = frames[::every]
    basis = median.new_zeros(len(median), rank)
    if pixels is None:
        basis = left.contiguous()
    elif rank:
        # of fewer frames the penalty is a smaller part; the codes are those of all
        noise = float(_deviation(frames, white, median, codes, left, pixels).clamp_min_(LEVEL).median())
        chosen, penalty = right[:, ::every].contiguous(), alpha / values / every
        for part in _parts(some):
            rows = _differences(some[:, part], white, median[part])
            basis[part] = huber_codes(rows, chosen, noise, penalty) / values
        basis[pixels] = left
    noises = [
        robust_deviation(
            _differences(some[:, part], white, median[part]).addmm_(basis[part], codes[::every].mT, alpha=-1)
        )
        for part in _parts(some)
    ]
    known = {number: codes[place] for place, number in enumerate(numbers)}
    return Background(median, basis, pixels, alpha / values, torch.cat(noises).clamp_min_(LEVEL), known)


def _deviation(frames: np.ndarray, white: float, median: Tensor, codes: Tensor, left: Tensor, pixels: Tensor) -> Tensor:
    """Return the noise of the entries looked at, ``(p,)``."""
    rows = _differences(frames[:, pixels.numpy()], white, median[pixels])
    return robust_deviation(rows.addmm_(left, codes.mT, alpha=-1))


def _differences(frames: np.ndarray, white: float, median: Tensor) -> Tensor:
    """Return what entries differ from their median by, a row each: ``(f, p)`` -> ``(p, f)``."""
    return torch.from_numpy(frames.T.astype(np.float32)).div_(white).sub_(median[:, None])


def _parts(frames: np.ndarray) -> Iterator[slice]:
    step = max(1, AT_ONCE // len(frames))
    for begin in range(0, frames.shape[1], step):
        yield slice(begin, min(begin + step, frames.shape[1]))
