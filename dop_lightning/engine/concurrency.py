"""Run small tiles and tiny images concurrently on a CPU, with one thread each.

The network of a small tile gains little from a second thread; running two networks with one thread each gains much
more. A tile always uses one thread, even on a single core or if it is the last one. Its result therefore does not
depend on the other tiles or on the number that run concurrently. The same holds for images of up to 32×32 pixels: on a
busy machine, several threads would spend most of the time waiting for each other.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import TypeVar

import torch

from dop_lightning.engine.state import OutOfMemoryError, State
from dop_lightning.foundation.thread_count import set_threads_here, threads_here

MAX_TINY_PIXELS = 32 * 32
"""Maximum number of pixels of whole images that use one thread. Their network runs at 64×64 pixels, like that of a
single pixel."""

FIRST_LOOKS = 4
"""Number of tiles per thread in a group if they have regions and begin. Most of them take a moment, and some examine a
region for seconds; with more tiles than threads, no thread is idle for long."""

T = TypeVar("T")

Advanced = list[int] | OutOfMemoryError
"""Result of advancing a batch: positions of the diverged problems, or the error if the batch did not fit in memory."""


def is_small(tile: Sequence[int]) -> bool:
    """Return whether the networks of tiles of (h, w) pixels are advanced concurrently.

    >>> is_small((128, 128)), is_small((512, 512))
    (True, False)
    """
    return math.prod(tile) <= State.max_concurrent_pixels


def has_one_thread(state: State) -> bool:
    """Return whether a batch is advanced on one thread: small tiles and tiny images on a CPU, with one network each.

    Whole images whose network may use the global random generator (``capturable`` is false) are advanced one by one.
    """
    problems = state.problems
    if problems.device.type != "cpu" or not state.is_sequential:
        return False
    size = problems.signal_shape[1:]
    if all(problem.part is not None for problem in problems):
        return math.prod(size) <= state.max_concurrent_pixels
    return (
        len(size) == 2 and math.prod(size) <= MAX_TINY_PIXELS and state.signal is not None and state.signal.capturable
    )


@contextmanager
def threads_of(state: State) -> Iterator[None]:
    """Use the same number of threads in the ``with`` block as when the batch is advanced."""
    threads = torch.get_num_threads()
    if threads == 1 or not has_one_thread(state):
        yield
        return
    with threads_here(1):
        yield


def concurrent_batches(state: State) -> int:
    """Return the number of batches like this one that are advanced concurrently."""
    return torch.get_num_threads() if has_one_thread(state) else 1


def concurrent_groups(states: Sequence[State], threads: int) -> Iterator[list[State]]:
    """Yield the batches in order, in groups that are advanced concurrently by a number of threads.

    Args:
        states: the batches.
        threads: number of threads.
    """
    for (side_by_side, in_regions), group in groupby(
        states, lambda state: (has_one_thread(state), _looks_first(state))
    ):
        together, size = list(group), threads if side_by_side else 1
        if side_by_side and in_regions and threads > 1:
            size *= FIRST_LOOKS
        yield from (together[begin : begin + size] for begin in range(0, len(together), size))


def _looks_first(state: State) -> bool:
    """Return whether a batch is a tile of a region in its first iteration."""
    part = state.problems[0].part
    return state.iteration == 0 and part is not None and part.region is not None


class ConcurrentBatches:
    """Advances the batches of a turn, in a thread pool if each of them uses one thread."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def advance(self, states: Sequence[State], iterations: Sequence[int]) -> list[Advanced]:
        """Advance each batch of a group by its number of iterations, and return the results."""
        if torch.get_num_threads() == 1 or not has_one_thread(states[0]):
            return [_advance(state, number) for state, number in zip(states, iterations, strict=True)]
        return self._run_all(
            [partial(_advance, state, number) for state, number in zip(states, iterations, strict=True)]
        )

    def compute_ahead(self, states: Sequence[State], functions: Sequence[Callable[[], object]]) -> None:
        """Call functions concurrently, one for each batch that uses one thread, if there are several.

        Functions of other batches are not called: their results are computed on access.
        """
        calls = [call for state, call in zip(states, functions, strict=True) if has_one_thread(state)]
        if torch.get_num_threads() > 1 and len(calls) > 1:
            self._run_all(calls)

    def _run_all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Run functions concurrently on one thread each, and return their results."""
        threads = torch.get_num_threads()
        if self._pool is None or self._size < threads:
            self._pool, self._size = ThreadPoolExecutor(threads, "tile"), threads
        works = [self._pool.submit(_on_one_thread, call) for call in calls]
        wait(works)
        return [work.result() for work in works]


def _advance(state: State, iterations: int) -> Advanced:
    try:
        return state.advance(iterations)
    except OutOfMemoryError as error:
        return error


def _on_one_thread(call: Callable[[], T]) -> T:
    set_threads_here(1)
    return call()
