"""bf16 units, cores and threads, on machines that are made up."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dop_lightning.foundation import machine as runtime
from dop_lightning.foundation.machine import (
    available_memory,
    has_bfloat16_units,
    is_out_of_memory,
    requested_threads,
    set_threads,
    usable_cores,
)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A container whose file of limits has the content that a test sets; initially no file."""
    file = tmp_path / "cpu.max"
    monkeypatch.setattr(runtime, "Path", lambda _: file)
    return file.write_text


def affinity(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_bf16_units_of_graphics_cards(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16_units("cuda:1") is (capability >= (8, 0))


@pytest.mark.parametrize(("amx", "avx"), [(False, False), (True, False), (False, True)])
def test_bf16_units_of_processors(amx: bool, avx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert has_bfloat16_units(torch.device("cpu")) is (amx or avx)


def test_other_devices_have_no_bf16_units() -> None:
    assert has_bfloat16_units("meta") is False


def test_cores_follow_the_affinity(monkeypatch: pytest.MonkeyPatch, quota) -> None:
    affinity(monkeypatch, 5)
    assert usable_cores() == 5
    quota("max 100000\n")
    assert usable_cores() == 5


@pytest.mark.parametrize(("limit", "cores"), [("300000 100000\n", 3), ("50000 100000\n", 1), ("900000 100000\n", 5)])
def test_cores_are_bounded_by_the_quota(limit: str, cores: int, monkeypatch: pytest.MonkeyPatch, quota) -> None:
    affinity(monkeypatch, 5)
    quota(limit)
    assert usable_cores() == cores


def test_cores_without_affinity(monkeypatch: pytest.MonkeyPatch, quota) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.usefixtures("threads")
def test_threads_are_the_requested_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert set_threads() == 3
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("asked", [None, ""])
def test_threads_are_the_usable_cores(asked: str | None, monkeypatch: pytest.MonkeyPatch, quota) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    affinity(monkeypatch, 2)
    assert set_threads() == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"])
@pytest.mark.parametrize("asked", ["0", "-1", "many", "1.5"])
def test_wrong_number_of_threads_is_reported(variable: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv(variable, asked)
    with pytest.raises(ValueError, match=f"{variable} must be a whole number of at least 1, got '{asked}'"):
        requested_threads()


def test_first_number_of_a_list_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4, 2")
    assert requested_threads() == 4


FAULTS = """
import resource, sys
import torch
from dop_lightning.foundation.machine import keep_freed_memory

print(keep_freed_memory())
for _ in range(10):  # glibc finds room for an aligned array after a few of them
    torch.ones(2**22)  # 16 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")
@pytest.mark.parametrize("theirs", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}])
def test_freed_memory_is_kept_by_default(theirs: dict[str, str]) -> None:
    others = {name: value for name, value in os.environ.items() if name not in runtime.ALLOCATOR}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=others | theirs, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    pages = 10 * 2**24 // resource.getpagesize()
    assert kept == str(not theirs)
    assert int(faults) > 0.9 * pages if theirs else int(faults) < 0.1 * pages


def test_other_c_libraries_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert runtime.keep_freed_memory() is False


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("HIP error: out of memory", True),
        ("MPS backend out of memory (MPS allocated: 9.0 GB)", True),
        ("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_errors_that_report_a_lack_of_memory(said: str, expected: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) is expected


def test_reserved_memory_without_a_tensor_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"mem_get_info": (100, 1000), "memory_reserved": 70, "memory_allocated": 30}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert available_memory("cuda") == 140
