"""What the machine offers, and how a process uses it: bf16 units, processor threads, memory."""

import ctypes
import os
import platform
from pathlib import Path

import psutil
import torch

from dop_lightning.foundation.processor import this_processor


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Whether bf16 convolutions run on units of their own there, so that they are faster than float32 ones."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(this_processor().bf16_units)
    return False


ALLOCATION_FAILED = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HIPBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)
"""What an error says that reports a lack of memory and is of no class of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on a GPU or for the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(failure in str(error) for failure in ALLOCATION_FAILED)


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be taken on a device; for the CPU also within the limit of its container.

    On a GPU, memory that PyTorch has reserved for this process and does not use counts as free.
    """
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


def usable_cores() -> int:
    """Processor cores this process may use: its affinity, and the quota of its container where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return max(1, cores)


def requested_threads() -> int | None:
    """Return ``OMP_NUM_THREADS``, or in a task of SLURM the cores that it was given; ``None`` if neither is set.

    Raises:
        ValueError: the variable is no whole number of at least 1.
    """
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        given = os.environ.get(variable, "").strip()
        if not given:
            continue
        requested = given.split(",")[0].strip()  # OpenMP takes a list, one number per level
        if not requested.isdigit() or int(requested) < 1:
            raise ValueError(f"the environment variable {variable} must be a whole number of at least 1, got {given!r}")
        return int(requested)
    return None


def set_threads(processes: int = 1) -> int:
    """Set torch's threads and return their number.

    It is ``OMP_NUM_THREADS`` where that is set; in a task of SLURM the cores that it was given; else this process'
    share of the usable cores. torch's own default counts the machine's cores, which in a container or a SLURM
    allocation is more than may be used; threads that wait for each other then cost a factor of ten.

    Args:
        processes: that work on this machine beside each other.
    """
    threads = requested_threads() or max(1, usable_cores() // processes)
    torch.set_num_threads(threads)
    return threads


MAPPED = 2**28
"""Bytes from which an array has pages of its own, which go back to the system when it is freed."""

MAPPED_BEFORE = 2**25
"""The same where glibc is old: the most that it takes."""

KEPT = 2**31 - 1
"""Bytes at the end of the heap that a process may keep, the most that glibc takes."""

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Where users say how glibc is to go about it."""


def return_freed_memory() -> None:
    """Give the memory that this process has freed back to the system; does nothing without glibc.

    To be called before other arrays are made than those that were freed, see :func:`keep_freed_memory`.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> bool:
    """Let this process keep the memory of arrays that it frees, for those that come next.

    glibc gives large arrays back to the system as soon as they are freed, and the system clears their pages when they
    are asked for again: for the activations of a network at each iteration, which can take a third of its time
    (docs/performance.md). The price is that memory may be a little fragmented.

    Returns:
        Whether it is set: not without glibc, nor where ``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_TRIM_THRESHOLD_`` or
        ``GLIBC_TUNABLES`` says something else already.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ALLOCATOR):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mapped = mallopt(M_MMAP_THRESHOLD, MAPPED) or mallopt(M_MMAP_THRESHOLD, MAPPED_BEFORE)
    return bool(mapped and mallopt(M_TRIM_THRESHOLD, KEPT))
