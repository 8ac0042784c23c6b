r"""The ratio α of a matrix, chosen from the data alone: by entries that are held out.

``α = √max(n, m)`` is right where a matrix is of low rank up to its outliers, and the outliers are many. Data of the
world are of low rank nearly, and often have few outliers: there a smaller α is better, by several dB (docs/alpha.md).
To tell without the truth, a share of the observed entries is kept from the recovery, at one value of α after the other,
and the α is taken that predicts them best,

    ``α = argmin Σ_{held out} |y − X̂_α|``.

The absolute error it is because the entries held out are as corrupted as the others: an outlier adds nearly the same
to the error of every α. Values are tried from the largest on, and no longer where the error rises: the smaller α, the
larger is the rank of what is recovered, and the longer it takes.

Shapes: n × m a matrix.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dop_lightning.engine.at_once import run_to_end
from dop_lightning.engine.state import AdvanceInterrupted, Procedure
from dop_lightning.foundation.checks import fraction, positive
from dop_lightning.matrices.separation import BLOCK
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.randomness import stream

SCALES = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25)
"""The values of α that are tried, in units of √max(n, m)."""

HELD_OUT = 0.05
"""The share of the observed entries that is held out."""

LARGEST = 500
"""Rows and columns that are looked at, at most: of a larger matrix a random part is as telling. Of a narrow one more
rows, up to as many entries."""

GAIN = 1e-3
"""Relative fall of the error for which a smaller α is taken."""


@dataclass(frozen=True)
class AlphaChoice:
    """What was tried.

    Attributes:
        alpha: the best ratio for the whole matrix; √max(n, m) where there are too few entries to tell.
        scales: the values tried, in units of √max(n, m).
        errors: the mean absolute error of the entries held out, for each of them.
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
        problem: with its observation, a matrix, and its mask; its seed draws the entries and the part.
        method: how it is to be recovered; its steps are to take ``tau: auto``, and end a problem by themselves.
        scales: values to try, in units of √max(n, m), each above 0, from the largest on.
        held_out: share of the observed entries, above 0 and below 1.
        max_iterations: of each, at least 1.
        device: where to.
        interrupted: asked after each block of iterations; the search ends when it is true.

    Raises:
        ValueError: an argument is out of range, or the problem is no matrix.
        AdvanceInterrupted: the search was interrupted.
    """
    if len(problem.observation.shape) != 2 or problem.sensing is not None:
        raise ValueError(f"{problem.name}: alpha can be chosen for matrices that were observed by entries alone")
    for scale in scales:
        positive("scales", scale)
    share = positive("held_out", fraction("held_out", held_out))
    part = _part(problem)
    y = part.observation
    mask = torch.ones_like(y, dtype=torch.bool) if part.mask is None else part.mask
    drawn = torch.rand(y.shape, generator=stream(problem.seed, "held_out"), dtype=torch.float32, device="cpu")
    hidden = mask & (drawn < share)
    if not hidden.any() or not (mask & ~hidden).any():  # too small a matrix to tell
        return AlphaChoice(max(problem.signal_shape) ** 0.5, (), ())
    shown = Problem(problem.name, y, mask=mask & ~hidden, seed=problem.seed)
    unit = max(y.shape) ** 0.5
    errors: list[float] = []
    best = 0
    for k, scale in enumerate(scales):
        errors.append(_error(method, shown, scale * unit, hidden, y, max_iterations, device, interrupted))
        if errors[k] < errors[best] * (1 - GAIN):
            best = k
        elif k > best + 1:
            break
    return AlphaChoice(scales[best] * max(problem.signal_shape) ** 0.5, tuple(scales[: len(errors)]), tuple(errors))


def _part(problem: Problem) -> Problem:
    """The problem without its truth, or random rows and columns of it where it is large."""
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
        mask = None  # every entry is then as good as none, and no alpha better than another
    return Problem(problem.name, problem.observation[rows][:, columns], mask=mask, seed=problem.seed)


def _error(
    method: Procedure,
    shown: Problem,
    alpha: float,
    hidden: Tensor,
    y: Tensor,
    max_iterations: int,
    device: torch.device | str,
    interrupted: Callable[[], object],
) -> float:
    """The mean absolute error of what is hidden; infinite where the recovery diverges."""
    ending = run_to_end(method, shown, max_iterations, block=BLOCK, device=device, alpha=alpha, interrupted=interrupted)
    if ending.ends[0] == "interrupted":
        raise AdvanceInterrupted
    if ending.ends[0] == "diverged":
        return math.inf
    return float((ending.evaluation.signal[0].cpu() - y)[hidden].abs().double().mean())
