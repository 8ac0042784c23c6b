r"""Paths of runs: curves that cross each row of an image in a few adjacent pixels, found by dynamic programming.

A run is a position (row r, column c of its first pixel, length n). A path has one run per row. From one row to the
next, c changes by 0 or 1, to one side only except at a turn, and n by at most 1. So a path has an angle between 45° and
90° to the rows; curves of other angles are paths of the transposed image. The score of a path is the sum of the gains
of its runs, minus a penalty for each turn and for each change of n. Let F be the best score of a path that ends at a
run, and D the same limited to a maximum:

    F(r, c, n) = gain(r, c, n) + max(0, max_previous D(r − 1, c′, n′) − penalty)

The limit bounds the gap that a path can bridge, whatever its score before the gap.

Shapes: N×H×W, gains of runs of 1 … N pixels by row and first column. Maps of both sides have a leading dimension of 2:
paths that move to the left, and to the right.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

LONGEST = 8
"""Maximum length N of a run: a scratch 5 pixels wide at an angle of 45°, and one more."""

MIN_SCORE = 40.0
"""Minimum score of a path."""

MAX_CARRIED = 120.0
"""Maximum of D. With gains of −6 per row, a path bridges a gap of at most 20 rows."""

RESIZE, TURN = 2.0, 8.0
"""Penalties for a change of n, and for a change of the side."""

MAX_SHARED = 0.3
"""A run counts as part of an earlier path if more than this fraction of its pixels are."""

IMPOSSIBLE = -1e4
"""Gain of runs that leave the image."""


@dataclass(frozen=True)
class Path:
    """A path of M runs; int64, ``(M,)``.

    Attributes:
        rows: row r of each run.
        firsts: first column c of each run.
        lengths: length n of each run.
        gain: sum of the gains of all runs.
        score: sum of the gains minus the penalties, without gains of runs of earlier paths.
    """

    rows: np.ndarray
    firsts: np.ndarray
    lengths: np.ndarray
    gain: float
    score: float

    def paint(self, found: Tensor | np.ndarray) -> None:
        """Set the pixels of the path to true, bool ``(H, W)``."""
        for row, first, length in zip(self.rows, self.firsts, self.lengths, strict=True):
            found[row, first : first + length] = True


def run_gains(left: Tensor, right: Tensor, inside: Tensor, pairs: Tensor) -> Tensor:
    """Return the gain of each run, ``(N, H, W)``: a sum over its first, last and all pixels.

    Args:
        left: gain of a pixel as the first of a run, ``(H, W)``.
        right: gain of a pixel as the last of a run, ``(H, W)``.
        inside: gain of each pixel of a run, ``(H, W)``.
        pairs: gain of each pixel of a run with its left neighbour, except for the first, ``(H, W)``.

    >>> gains = run_gains(*(value * torch.ones(1, 9) for value in (1, 2, 10, 100)))
    >>> gains[:3, 0, 0].tolist(), gains[1, 0, 8].item()
    ([13.0, 123.0, 233.0], -10000.0)
    """
    height, width = left.shape
    result = left.new_full((LONGEST, height, width), IMPOSSIBLE)
    all_inside, all_pairs = (pad(each.cumsum(1), (1, 0)) for each in (inside, pairs))
    for n in range(1, min(LONGEST, width) + 1):
        count = width - n + 1
        within = all_inside[:, n:] - all_inside[:, :count] + all_pairs[:, n:] - all_pairs[:, 1 : count + 1]
        result[n - 1, :, :count] = left[:, :count] + right[:, n - 1 :] + within
    return result


def best_paths(gain: Tensor) -> list[Path]:
    """Return paths with a score of at least :data:`MIN_SCORE`, from high to low F of their last run.

    Paths may cross. The gains of runs that belong to an earlier path do not count for a later one.

    Args:
        gain: ``(N, H, W)`` from :func:`run_gains`.
    """
    reached = _best_before(gain).add_(gain)
    ends = (reached >= MIN_SCORE) & (gain > 0)
    if not bool(ends.any()):
        return []
    ends &= (_best_before(gain.flip(1)) <= 0).flip(2).flip(0)
    order = reached[ends].sort(descending=True, stable=True).indices
    values, gains = reached.numpy(), gain.numpy()
    used = np.zeros(gain.shape[1:], dtype=bool)
    seen = np.zeros(reached.shape, dtype=bool)
    paths = []
    for place in ends.nonzero()[order].numpy():
        path = _traced(place, values, gains, seen, used)
        if path is not None:
            paths.append(path)
            path.paint(used)
    return paths


def _best_before(gain: Tensor) -> Tensor:
    """Return ``max(0, max_previous D − penalty)`` of all runs, ``(2, N, H, W)``."""
    lengths, height, width = gain.shape
    result = gain.new_zeros(2, lengths, height, width)
    before = gain.new_full((2, lengths + 2, width + 2), IMPOSSIBLE)
    carried = before[:, 1:-1, 1:-1]
    torch.clamp(gain[:, 0].expand_as(carried), 0, MAX_CARRIED, out=carried)
    either, turned = torch.empty(2, 2, lengths, width + 2).unbind()
    for r in range(1, height):
        torch.maximum(before[:, :-2], before[:, 2:], out=either)
        torch.maximum(either.sub_(RESIZE), before[:, 1:-1], out=either)
        torch.sub(either.flip(0), TURN, out=turned)
        torch.maximum(either, turned, out=either)
        here = result[:, :, r]
        torch.maximum(either[0, :, 1:-1], either[0, :, 2:], out=here[0])
        torch.maximum(either[1, :, 1:-1], either[1, :, :-2], out=here[1])
        torch.clamp(here + gain[:, r], 0, MAX_CARRIED, out=carried)
    return result


def _traced(
    place: np.ndarray, values: np.ndarray, gains: np.ndarray, seen: np.ndarray, used: np.ndarray
) -> Path | None:
    """Trace a path back from its last run, and return its best part, or ``None`` if the score is too low.

    Args:
        place: side, n − 1, row and column of the last run.
        values: F, ``(2, N, H, W)``.
        gains: ``(N, H, W)``.
        seen: runs at which a trace ends because an earlier one has continued from there, ``(2, N, H, W)``; updated.
        used: pixels of earlier paths, ``(H, W)``.
    """
    side, n, row, column = (int(index) for index in place)
    last = used[row, max(0, column - 1) : column + n + 2]
    if last.any():
        return None
    runs: list[tuple[int, int, int]] = []
    scores: list[float] = []
    penalty = 0.0
    while not seen[side, n, row, column]:
        seen[side, n, row, column] = True
        shared = used[row, column : column + n + 1].mean() > MAX_SHARED
        runs.append((row, column, n + 1))
        scores.append((0.0 if shared else float(gains[n, row, column])) - penalty)
        if row == 0 or values[side, n, row, column] <= gains[n, row, column] + 1e-4:
            break
        _, penalty, side, n, column = max(_previous(values, side, n, row, column), key=lambda each: each[0])
        row -= 1
    score, begin, end = _best_part(scores)
    if score < MIN_SCORE:
        return None
    rows, firsts, lengths = np.array(runs[begin:end], dtype=np.int64).T
    return Path(rows, firsts, lengths, float(gains[lengths - 1, rows, firsts].sum()), score)


def _previous(values: np.ndarray, side: int, n: int, row: int, column: int) -> list[tuple[float, float, int, int, int]]:
    """Return value, penalty, side, n − 1 and column of the possible runs in the row before."""
    result = []
    width = values.shape[3]
    for other in (side, 1 - side):
        for length in range(max(0, n - 1), min(LONGEST, n + 2)):
            for first in (column, column + (1 if side == 0 else -1)):
                if 0 <= first < width:
                    penalty = (RESIZE if length != n else 0.0) + (TURN if other != side else 0.0)
                    value = float(values[other, length, row - 1, first])
                    result.append((value - penalty, penalty, other, length, first))
    return result


def _best_part(scores: list[float]) -> tuple[float, int, int]:
    """Return sum, begin and end of the consecutive scores with the largest sum.

    >>> _best_part([1.0, -2.0, 3.0, -1.0, 4.0, -9.0])
    (6.0, 2, 5)
    """
    best = (0.0, 0, 0)
    total, begin = 0.0, 0
    for at, score in enumerate(scores):
        if total <= 0:
            total, begin = 0.0, at
        total += score
        if total > best[0]:
            best = (total, begin, at + 1)
    return best
