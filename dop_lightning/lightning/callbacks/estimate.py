"""How long a run is going to take, by a few iterations of its largest problem."""

import time
from dataclasses import replace
from typing import NamedTuple

from dop_lightning.engine.abreast import abreast
from dop_lightning.engine.graphs import iterations_ahead
from dop_lightning.engine.measure import seconds_an_iteration
from dop_lightning.engine.rivals.base import ImageFilter
from dop_lightning.engine.rivals.state import FilterState
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.foundation.units import format_duration
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.problems.problem import Problem, ProblemBatch

CROPS = (64, 192)
"""Sides of the parts of an image that a filter is timed with, in pixels."""


class Estimate(NamedTuple):
    """What is expected of a run.

    Attributes:
        text: a line for people.
        rate: seconds per entry and iteration, ``None`` if it could not be measured.
    """

    text: str
    rate: float | None


def estimate_time(module: DoubleOverparameterization, last: int) -> Estimate:
    """Estimate how long the batches at work take: others in proportion to the entries of the largest problem.

    Args:
        module: with batches at work.
        last: iterations of each problem.
    """
    sizes = [state.problems.observation[0].numel() for state in module.states]
    largest = module.states[sizes.index(max(sizes))]
    try:
        if isinstance(largest, FilterState):
            seconds = _seconds_of_filter(largest)
        else:
            ahead, number = iterations_ahead(largest.problems.device), min(abreast(largest), sizes.count(max(sizes)))
            one, *beside = (largest.select([0]) for _ in range(number))
            seconds = seconds_an_iteration(one, stopped=lambda: module.stopped_by, ahead=ahead, beside=beside)
    except OutOfMemoryError as error:
        return Estimate(f"{error}", None)  # the first step will say what to do
    work = sum(size * len(state) * (last - state.iteration) for size, state in zip(sizes, module.states, strict=True))
    rate = seconds / max(sizes)
    each = "" if isinstance(largest, FilterState) else f", {seconds:.2g} s each of the largest"
    what = "It takes" if isinstance(largest, FilterState) else "The iterations take"
    return Estimate(f"{what} {format_duration(rate * work)}{each}", rate)


def _seconds_of_filter(state: FilterState) -> float:
    """Return the seconds that a filter takes for the first image of a batch, from those for two parts of its centre."""
    small, large = (_centre(state.problems[0], side) for side in CROPS)
    first = min(_seconds(state.filter, small) for _ in range(2))  # the first call may compile kernels
    pixels = [problem.observation.numel() for problem in (small, large, state.problems[0])]
    if pixels[0] == pixels[1]:
        return first
    slope = max(0.0, (_seconds(state.filter, large) - first) / (pixels[1] - pixels[0]))
    return first + slope * (pixels[2] - pixels[0])


def _seconds(image_filter: ImageFilter, problem: Problem) -> float:
    """Return the seconds that a filter takes for an image."""
    state = FilterState(image_filter, ProblemBatch([problem]))
    begin = time.perf_counter()
    state.advance(1)
    return time.perf_counter() - begin


def _centre(problem: Problem, side: int) -> Problem:
    """Return the centre of an image, all of it if nothing was observed there."""
    height, width = problem.observation.shape[1:]
    rows, columns = (slice(max(0, (length - side) // 2), (length + side) // 2) for length in (height, width))
    mask = None if problem.mask is None else problem.mask[:, rows, columns]
    if mask is not None and not mask.any():
        return problem
    return replace(
        problem,
        observation=problem.observation[:, rows, columns].contiguous(),
        mask=mask,
        truth=None,
        true_corruption=None,
        signal_shape=(),
        part=None,
    )
