r"""Choose the ratio α for a matrix from the data alone, by held-out entries.

``α = √max(n, m)`` is right if a matrix is of exactly low rank except for outliers, and the outliers are many. Real data
are only approximately of low rank and often have few outliers: a smaller α is then better, by several dB
(docs/alpha.md). To choose α without the truth, a fraction of the observed entries is held out of the recovery. The
chosen α predicts them best,

    ``α = argmin Σ_{held out} |y − X̂_α|``.

The absolute error is used because the held-out entries are corrupted like the others: an outlier adds nearly the same
error for every α. Values are tested in descending order until the error increases: a smaller α leads to a larger rank
of the recovered matrix, and to a longer computation.

Shapes: n × m a matrix.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dop_lightning.engine.runners import run_to_end
from dop_lightning.engine.state import AdvanceInterrupted, Procedure
from dop_lightning.foundation.checks import fraction, positive
from dop_lightning.matrices.separation import BLOCK
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.randomness import stream

SCALES = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25)
"""Candidate values of α in units of √max(n, m)."""

HELD_OUT = 0.05
"""Fraction of the observed entries that is held out."""

LARGEST = 500
"""Maximum number of rows and columns that are used: of a larger matrix, a random part is as informative. For a narrow
matrix, more rows are used, up to the same number of entries."""

GAIN = 1e-3
"""Minimum relative decrease of the error for preferring a smaller α."""


@dataclass(frozen=True)
class AlphaChoice:
    """Result of the choice of α.

    Attributes:
        alpha: best ratio for the whole matrix; √max(n, m) if there are too few entries.
        scales: tested values, in units of √max(n, m).
        errors: mean absolute error of the held-out entries for each of them.
    """

    alpha: float
    scales: tuple[float, ...]
    errors: tuple[float, ...]


def choose_alpha(
    problem: Problem,
    method: Procedure,
    scales: Sequence[float] = SCALES,
    held_out: float = HELD_OUT,
    max_iterations: int = 300,
    device: torch.device | str = "cpu",
    interrupted: Callable[[], object] = lambda: False,
) -> AlphaChoice:
    """Choose α for a matrix.

    Args:
        problem: matrix with its observation and mask. Its seed determines the held-out entries, and the part of a large
            matrix.
        method: method of recovery. It must support ``tau: auto``, and end problems on its own.
        scales: candidate values in units of √max(n, m), each above 0, in descending order.
        held_out: fraction of the observed entries to hold out, above 0 and below 1.
        max_iterations: maximum iterations per candidate, at least 1.
        device: device of the computation.
        interrupted: called after each block of iterations; the search ends if it returns true.

    Raises:
        ValueError: an argument is out of range, or the problem is not a matrix.
        AdvanceInterrupted: the search was interrupted.
    """
    if len(problem.observation.shape) != 2 or problem.sensing is not None:
        raise ValueError(f"{problem.name}: alpha can only be chosen for matrices observed by entries")
    for scale in scales:
        positive("scales", scale)
    share = positive("held_out", fraction("held_out", held_out))
    part = _sample_problem(problem)
    y = part.observation
    mask = torch.ones_like(y, dtype=torch.bool) if part.mask is None else part.mask
    drawn = torch.rand(y.shape, generator=stream(problem.seed, "held_out"), dtype=torch.float32, device="cpu")
    hidden = mask & (drawn < share)
    if not hidden.any() or not (mask & ~hidden).any():  # the matrix is too small
        return AlphaChoice(max(problem.signal_shape) ** 0.5, (), ())
    shown = Problem(problem.name, y, mask=mask & ~hidden, seed=problem.seed)
    unit = max(y.shape) ** 0.5
    errors: list[float] = []
    best = 0
    for k, scale in enumerate(scales):
        errors.append(_hidden_error(method, shown, scale * unit, hidden, y, max_iterations, device, interrupted))
        if errors[k] < errors[best] * (1 - GAIN):
            best = k
        elif k > best + 1:
            break
    return AlphaChoice(scales[best] * max(problem.signal_shape) ** 0.5, tuple(scales[: len(errors)]), tuple(errors))


def _sample_problem(problem: Problem) -> Problem:
    """Return the problem without its truth, or random rows and columns of it if it is large."""
    sides = problem.observation.shape
    if sides.numel() <= LARGEST**2:
        return replace(problem, truth=None, true_corruption=None)
    narrow = min(*sides, LARGEST)
    generator = stream(problem.seed, "held_out", 1)
    counts = [narrow if n == min(sides) else LARGEST**2 // narrow for n in sides]
    rows, columns = (
        torch.randperm(n, generator=generator, device="cpu")[:count].sort().values
        for n, count in zip(sides, counts, strict=True)
    )
    mask = None if problem.mask is None else problem.mask[rows][:, columns]
    if mask is not None and not mask.any():
        mask = None  # nothing is observed in this part, so all candidates are equal
    return Problem(problem.name, problem.observation[rows][:, columns], mask=mask, seed=problem.seed)


def _hidden_error(
    method: Procedure,
    shown: Problem,
    alpha: float,
    hidden: Tensor,
    y: Tensor,
    max_iterations: int,
    device: torch.device | str,
    interrupted: Callable[[], object],
) -> float:
    """Return the mean absolute error of the hidden entries; infinite if the recovery diverges."""
    ending = run_to_end(method, shown, max_iterations, block=BLOCK, device=device, alpha=alpha, interrupted=interrupted)
    if ending.ends[0] == "interrupted":
        raise AdvanceInterrupted
    if ending.ends[0] == "diverged":
        return math.inf
    return float((ending.evaluation.signal[0].cpu() - y)[hidden].abs().double().mean())
