"""Set the number of PyTorch threads for one thread of the process without affecting the others.

``torch.set_num_threads`` also sets the default for threads that start later. A user's thread that starts in the
meantime would keep this number, and its results would be rounded differently.
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
    """Set the number of PyTorch threads of the calling thread. The default for later threads is unchanged.

    Args:
        count: number of threads, ≥ 1.
    """
    before = torch.get_num_threads()  # the first call in a new thread takes the default of the process
    if count == before:
        return
    for set_number in _thread_setters():
        set_number(count)
    if torch.get_num_threads() == count:
        return
    of_process = _default_threads()
    torch.set_num_threads(count)
    _run_in_new_thread(lambda: torch.set_num_threads(of_process))


@contextmanager
def threads_here(count: int) -> Iterator[None]:
    """Set the number of PyTorch threads of the calling thread in a ``with`` block."""
    before = torch.get_num_threads()
    set_threads_here(count)
    try:
        yield
    finally:
        set_threads_here(before)


@functools.cache
def _thread_setters() -> tuple[Callable[[int], object], ...]:
    """Return the setters of the OpenMP and MKL libraries that PyTorch has loaded; empty if they cannot be found."""
    try:
        process = ctypes.CDLL(None)
        found = [process.omp_set_num_threads]
        if torch.backends.mkl.is_available():
            torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
            found.append(torch_library.MKL_Set_Num_Threads_Local)
    except (OSError, AttributeError, TypeError):  # macOS, Windows, builds with other libraries
        return ()
    # Before the first call of torch.set_num_threads, new threads take the number of OpenMP and MKL, which is about to
    # change. This call fixes the number that they would have had.
    number = _default_threads()
    _run_in_new_thread(lambda: torch.set_num_threads(number))
    return tuple(found)


def _default_threads() -> int:
    """Return the number of threads of a thread that starts now."""
    return _run_in_new_thread(torch.get_num_threads)


def _run_in_new_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
