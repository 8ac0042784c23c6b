"""Tiles of images side by side on a CPU, one thread each.

The network of a small tile gains little from a second thread, two networks with a thread each gain much more. What a
tile becomes depends neither on the others nor on how many are at work at a time, since each of them always has one
thread: with one core or many, and when only one is left.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import groupby

import torch

from dop_lightning.engine.state import OutOfMemoryError, State

LARGEST = 256 * 256
"""Pixels of a tile above which one at a time has all threads: it gains from them, and it takes memory."""

Advanced = list[int] | OutOfMemoryError
"""What became of a batch: the positions of the problems that diverged, or that it did not fit in memory."""


def is_small(tile: Sequence[int]) -> bool:
    """Whether tiles of (h, w) pixels are advanced side by side.

    >>> is_small((128, 128)), is_small((512, 512))
    (True, False)
    """
    return math.prod(tile) <= LARGEST


def has_one_thread(state: State) -> bool:
    """Whether a batch is advanced on one thread: small tiles on a CPU, each with a network."""
    problems = state.problems
    small = is_small(problems.signal_shape[1:])
    tiles = all(problem.part is not None for problem in problems)
    return small and tiles and problems.device.type == "cpu" and state.runs_one_by_one


def abreast(state: State) -> int:
    """How many batches such as this one are advanced side by side."""
    return torch.get_num_threads() if has_one_thread(state) else 1


def turns(states: Sequence[State], threads: int) -> Iterator[list[State]]:
    """The batches in their order, those together that are advanced side by side.

    Args:
        states: the batches.
        threads: at most so many side by side.
    """
    for side_by_side, group in groupby(states, has_one_thread):
        together, size = list(group), threads if side_by_side else 1
        yield from (together[begin : begin + size] for begin in range(0, len(together), size))


class Abreast:
    """Advances the batches of a turn, with threads of its own where they have one each."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def advance(self, states: Sequence[State], iterations: Sequence[int]) -> list[Advanced]:
        """Let each of the batches of :func:`turns` do so many iterations, and return what became of it."""
        threads = torch.get_num_threads()
        if threads == 1 or not has_one_thread(states[0]):
            return [_advance(state, number) for state, number in zip(states, iterations, strict=True)]
        if self._pool is None or self._size < threads:
            self._pool, self._size = ThreadPoolExecutor(threads, "tile"), threads
        works = [
            self._pool.submit(_advance_on_one_thread, state, number)
            for state, number in zip(states, iterations, strict=True)
        ]
        wait(works)
        torch.set_num_threads(threads)  # of threads to come; those of this one have not changed
        return [work.result() for work in works]


def _advance(state: State, iterations: int) -> Advanced:
    try:
        return state.advance(iterations)
    except OutOfMemoryError as error:
        return error


def _advance_on_one_thread(state: State, iterations: int) -> Advanced:
    torch.set_num_threads(1)
    return _advance(state, iterations)
