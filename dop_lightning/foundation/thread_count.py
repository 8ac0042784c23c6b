"""The number of threads of one thread of the process, without a change for the others.

``torch.set_num_threads`` also sets the number that threads get which begin later. A thread of the user that begins just
then would have another number from then on, and results with other rounding.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def set_threads_here(count: int) -> None:
    """Let the calling thread use so many threads in PyTorch; threads that begin later have the number they would have.

    Args:
        count: at least 1.
    """
    before = torch.get_num_threads()  # a new thread takes the number of the process at its first call
    if count == before:
        return
    for set_number in _setters():
        set_number(count)
    if torch.get_num_threads() == count:
        return
    of_process = _of_new_threads()
    torch.set_num_threads(count)
    _in_new_thread(lambda: torch.set_num_threads(of_process))


@contextmanager
def threads_here(count: int) -> Iterator[None]:
    """Let the calling thread use so many threads in a ``with`` block."""
    before = torch.get_num_threads()
    set_threads_here(count)
    try:
        yield
    finally:
        set_threads_here(before)


@functools.cache
def _setters() -> tuple[Callable[[int], object], ...]:
    """The functions of the OpenMP and the MKL that PyTorch has loaded; none where they cannot be found."""
    try:
        process = ctypes.CDLL(None)
        found = [process.omp_set_num_threads]
        if torch.backends.mkl.is_available():
            torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
            found.append(torch_library.MKL_Set_Num_Threads_Local)
    except (OSError, AttributeError, TypeError):  # macOS, Windows, builds with other libraries
        return ()
    # As long as nobody has called torch.set_num_threads, new threads take what OpenMP and MKL say, which is about to
    # change. From here on they have the number that they would have had.
    number = _of_new_threads()
    _in_new_thread(lambda: torch.set_num_threads(number))
    return tuple(found)


def _of_new_threads() -> int:
    """Return the number that a thread gets which begins now."""
    return _in_new_thread(torch.get_num_threads)


def _in_new_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
