r"""Background of a scene: what its frames have in common, and how it changes.

Frames are columns of a matrix, ``y_f = median + b_f + s_f``. The background is the median frame plus a low-rank part b,
such as lamps that are switched on and off; moving objects are the corruption s. The low-rank part has few components,
``b_f = B·v_f``, so it can be recovered from a sample of frames and pixels (Eqs. 3 and 6). The other pixels then follow
from V, and the other frames from B, independently of each other
(:func:`~dop_lightning.matrices.scenes.regression.huber_codes`). Thousands of frames are never in memory at once.

Shapes: P entries of a frame (C·H·W), p of them sampled, F frames, f of them sampled, r the rank of b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.robust_codes import robust_codes
from dop_lightning.matrices.scenes.regression import huber_codes, robust_deviation

MAX_COMPONENTS = 16
"""Maximum number of components; further ones make up a hundredth of the background's change, at the same cost."""

NEGLIGIBLE = 1e-3
"""Minimum singular value of a component, relative to the largest."""

ITERATIONS, SMALLEST = 25, 1e-4
"""Maximum iterations and tolerance of least absolute deviations; one grey level is 1/255."""

MIN_FRAMES = 100
"""Frames from which entries outside the sample, and the noise, are estimated; at least six per component."""

LEVEL = 1 / 255
"""Minimum noise: 8-bit frames are rounded to it, and compression removes smaller differences."""

AT_ONCE = 2**22
"""Entries of the sampled frames that are converted to floats at once."""


@dataclass(frozen=True)
class Background:
    """Background that can be subtracted from any frame of its scene.

    Attributes:
        median: ``(P,)``, in [0, 1].
        basis: B ``(P, r)``; restricted to ``pixels``, its columns are orthonormal.
        pixels: sampled entries, ``(p,)``; ``None`` if all are used.
        penalty: α/σ, ``(r,)``.
        noise: robust standard deviation of ``y − median − Bv`` of each entry over the frames, ``(P,)``, at least 1/255.
        known: v ``(r,)`` of the sampled frames, by frame number.
    """

    median: Tensor
    basis: Tensor
    pixels: Tensor | None
    penalty: Tensor
    noise: Tensor
    known: dict[int, Tensor] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Rank r."""
        return self.basis.shape[1]

    def codes(self, frames: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """Return the codes v of frames ``(F, P)``, as ``(F, r)``.

        If all entries are used, as for small frames, codes are computed by least absolute deviations, see
        :func:`~dop_lightning.engine.robust_codes.robust_codes`. Otherwise, the separation provides the codes of the
        sampled frames, and :func:`~dop_lightning.matrices.scenes.regression.huber_codes` those of the others.

        Args:
            frames: the frames, in [0, 1].
            numbers: frame numbers; ``None`` if they are not known.
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
    """Return the median of each entry of frames ``(f, P)``, as ``(P,)`` in [0, 1]; processes parts of the entries."""
    parts = [np.median(frames[:, part], axis=0) for part in _entry_slices(frames)]
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
    """Return the background of all entries, given the low-rank part of the sample.

    Args:
        frames: sampled frames, ``(f, P)``, of any dtype.
        white: value that corresponds to 1.
        median: median of the frames, ``(P,)``.
        low_rank: recovered low-rank part of the sampled pixels, ``(p, f)``.
        alpha: ratio α of the recovery.
        pixels: sampled pixels, ``(p,)``; ``None`` if all are used.
        numbers: frame numbers of the f sampled frames; empty if they are not known.
    """
    left, values, right = torch.linalg.svd(low_rank, full_matrices=False)
    rank = int((values > NEGLIGIBLE * values[0]).sum()) if values[0] > NEGLIGIBLE else 0
    rank = min(rank, MAX_COMPONENTS)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    codes = (right * values[:, None]).mT.contiguous()  # f × r
    every = max(1, len(frames) // max(MIN_FRAMES, 6 * rank))
    some = frames[::every]
    basis = median.new_zeros(len(median), rank)
    if pixels is None:
        basis = left.contiguous()
    elif rank:
        # with fewer frames, the penalty is reduced in proportion; the codes are those of all frames
        noise = float(_deviation(frames, white, median, codes, left, pixels).clamp_min_(LEVEL).median())
        chosen, penalty = right[:, ::every].contiguous(), alpha / values / every
        for part in _entry_slices(some):
            rows = _differences(some[:, part], white, median[part])
            basis[part] = huber_codes(rows, chosen, noise, penalty) / values
        basis[pixels] = left
    noises = [
        robust_deviation(
            _differences(some[:, part], white, median[part]).addmm_(basis[part], codes[::every].mT, alpha=-1)
        )
        for part in _entry_slices(some)
    ]
    known = {number: codes[place] for place, number in enumerate(numbers)}
    return Background(median, basis, pixels, alpha / values, torch.cat(noises).clamp_min_(LEVEL), known)


def _deviation(frames: np.ndarray, white: float, median: Tensor, codes: Tensor, left: Tensor, pixels: Tensor) -> Tensor:
    """Return the noise of the sampled entries, ``(p,)``."""
    rows = _differences(frames[:, pixels.numpy()], white, median[pixels])
    return robust_deviation(rows.addmm_(left, codes.mT, alpha=-1))


def _differences(frames: np.ndarray, white: float, median: Tensor) -> Tensor:
    """Return the differences of entries from their median, one row per entry: ``(f, p)`` -> ``(p, f)``."""
    return torch.from_numpy(frames.T.astype(np.float32)).div_(white).sub_(median[:, None])


def _entry_slices(frames: np.ndarray) -> Iterator[slice]:
    step = max(1, AT_ONCE // len(frames))
    for begin in range(0, frames.shape[1], step):
        yield slice(begin, min(begin + step, frames.shape[1]))
