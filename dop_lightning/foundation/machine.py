"""Resources of the machine and their use by a process: bf16 units, threads, memory."""

import ctypes
import os
import platform
from pathlib import Path

import psutil
import torch

from dop_lightning.foundation.processor import this_processor


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Return whether a device has hardware for bf16, so that bf16 convolutions are faster than float32 ones."""
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
"""Messages of out-of-memory errors that have no separate class."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports insufficient memory, on a GPU or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(failure in str(error) for failure in ALLOCATION_FAILED)


def available_memory(device: torch.device | str = "cpu") -> int:
    """Return the bytes that can still be allocated on a device; for the CPU, within the limit of its container.

    On a GPU, memory that PyTorch has reserved for this process but does not use counts as free.
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
    """Return the number of cores this process may use, from its affinity and the quota of its container, if any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return max(1, cores)


def requested_threads() -> int | None:
    """Return ``OMP_NUM_THREADS``, or the cores assigned to a SLURM task; ``None`` if neither is set.

    Raises:
        ValueError: the variable is not a whole number ≥ 1.
    """
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        given = os.environ.get(variable, "").strip()
        if not given:
            continue
        requested = given.split(",")[0].strip()  # OpenMP supports a list, one number per nesting level
        if not requested.isdigit() or int(requested) < 1:
            raise ValueError(f"the environment variable {variable} must be a whole number of at least 1, got {given!r}")
        return int(requested)
    return None


def set_threads(processes: int = 1) -> int:
    """Set the number of threads of PyTorch, and return it.

    It is ``OMP_NUM_THREADS`` if set, or the cores assigned to a SLURM task; by default, the usable cores divided by the
    number of processes. The default of PyTorch is the number of cores of the machine, which is too large in a container
    or a SLURM allocation; threads that wait for each other then slow it down by a factor of ten.

    Args:
        processes: number of processes that run concurrently on this machine.
    """
    threads = requested_threads() or max(1, usable_cores() // processes)
    torch.set_num_threads(threads)
    return threads


MAPPED = 2**28
"""Size in bytes from which an array is mapped separately, and returned to the system when it is freed."""

MAPPED_BEFORE = 2**25
"""The same for old versions of glibc: the maximum that they accept."""

KEPT = 2**31 - 1
"""Free bytes at the top of the heap that a process may keep: the maximum that glibc accepts."""

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables with which users configure the allocator of glibc."""


def return_freed_memory() -> None:
    """Return the memory that this process has freed to the system. No-op without glibc.

    Call it before allocating arrays of other sizes than the freed ones, see :func:`keep_freed_memory`.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> bool:
    """Keep the memory of freed arrays in this process, for later arrays.

    By default, glibc returns large arrays to the system when they are freed, and the system clears the pages when they
    are allocated again. This happens to the activations of a network at each iteration, and can take a third of the
    time (docs/performance.md). The cost is some fragmentation of memory.

    Returns:
        Whether the setting was changed: ``False`` without glibc, or if the user has set ``MALLOC_MMAP_THRESHOLD_``,
        ``MALLOC_TRIM_THRESHOLD_`` or ``GLIBC_TUNABLES``.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ALLOCATOR):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mapped = mallopt(M_MMAP_THRESHOLD, MAPPED) or mallopt(M_MMAP_THRESHOLD, MAPPED_BEFORE)
    return bool(mapped and mallopt(M_TRIM_THRESHOLD, KEPT))
