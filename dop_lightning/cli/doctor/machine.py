"""Checks of the machine: processor, memory, GPUs, the compiler of the kernels, and folders."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dop_lightning.cli.doctor.finding import Finding, State, attempt
from dop_lightning.foundation.native.cache import written_by_others
from dop_lightning.foundation.units import format_bytes

MIN_MEMORY = 2**30
"""Bytes of free memory below which images are recovered in small tiles."""

MIN_DISK = 2**28
"""Bytes of free disk space below which the results of a run may not fit."""


def check_machine() -> Iterator[Finding]:
    """Run all checks of the machine; those that need PyTorch report if it is broken."""
    yield Finding("machine", "system", "ok", f"{platform.platform()}, {platform.machine()}")
    yield attempt("machine", "processor", _processor)
    yield attempt("machine", "threads", _threads)
    yield attempt("machine", "memory", _memory)
    yield attempt("machine", "GPU", _gpu)
    yield attempt("machine", "kernels", _kernels)
    yield attempt("machine", "cache", _cache)
    yield attempt("machine", "this folder", _folder)
    yield attempt("machine", "terminal", _terminal)


def _torch() -> Any:
    return importlib.import_module("torch")


def _runtime() -> Any:
    return importlib.import_module("dop_lightning.foundation.machine")


def _processor() -> tuple[State, str]:
    processor = _this_processor()
    text = f"{_processor_name()}, {processor.architecture} with {processor.vectors}"
    return "ok", f"{text}; networks run in {processor.precision}, since {processor.reason}"


def _this_processor() -> Any:
    return importlib.import_module("dop_lightning.foundation.processor").this_processor()


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _threads() -> tuple[State, str]:
    runtime = _runtime()
    try:
        usable, threads = runtime.usable_cores(), runtime.set_threads()
    except ValueError as error:
        return "problem", str(error)
    requested = os.environ.get("OMP_NUM_THREADS", "")
    text = f"{threads}, with {usable} of {os.cpu_count() or usable} cores available"
    text += f" and OMP_NUM_THREADS={requested}" if requested else ""
    if threads > usable:
        return "problem", f"{text}: too many threads slow each other down; set OMP_NUM_THREADS to the number of cores"
    return "ok", text


def _memory() -> tuple[State, str]:
    free = _runtime().available_memory()
    text = f"{format_bytes(free)} free"
    return ("ok", text) if free >= MIN_MEMORY else ("problem", f"{text}: images will be recovered in small tiles")


def _gpu() -> tuple[State, str]:
    torch, hints = _torch(), importlib.import_module("dop_lightning.cli.hints")
    gpus = hints.look()
    if torch.cuda.is_available():
        names = []
        for index in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(index)
            names.append(
                f"{known.name}, {format_bytes(known.total_memory)}, compute capability {known.major}.{known.minor}"
            )
        return "ok", f"{'; '.join(names)} (CUDA {gpus.cuda_build}{_driver()})"
    if gpus.usable:
        return "ok", "Apple (MPS), float32 only"
    if unused := hints.unused_gpu(gpus):
        return "problem", unused
    return "missing", f"{hints.no_gpu(gpus)}: everything runs on the CPU"


def _driver() -> str:
    """Return the version of NVIDIA's driver on Linux."""
    file = Path("/proc/driver/nvidia/version")
    words = file.read_text(encoding="utf-8", errors="replace").split() if file.is_file() else []
    version = next((word for word in words if word[:1].isdigit() and "." in word), "")
    return f", driver {version}" if version else ""


def _kernels() -> tuple[State, str]:
    compiled = importlib.import_module("dop_lightning.foundation.native.compiled")
    slower = "networks use plain PyTorch operations and take up to twice as long on a CPU"
    try:
        path = compiled.build(compiled.cache_folder())
    except (RuntimeError, OSError) as error:
        install = "; install g++" if "g++ was not found" in str(error) else ""
        return "missing", f"{error}{install}; {slower}"
    if compiled.library() is None:
        return "problem", f"{path} cannot be loaded; {slower}"
    tuning = _this_processor().tuning_flags if compiled.is_tuned(path) else ("without tuning to this processor",)
    compiler = " ".join([*compiled.compiler(), *tuning])
    return "ok", f"networks use compiled kernels: {compiler}, {path}"


def _cache() -> tuple[State, str]:
    compiled = importlib.import_module("dop_lightning.foundation.native.compiled")
    folder = compiled.cache_folder()
    if folder.exists() and (hint := written_by_others(folder)):
        return "problem", f"{hint}: compiled kernels in it are not used; set XDG_CACHE_HOME to your own folder"
    return writable(folder, "set XDG_CACHE_HOME to a writable folder")


def _folder() -> tuple[State, str]:
    return writable(Path.cwd(), "pass another folder to --out")


def writable(folder: Path, else_: str) -> tuple[State, str]:
    """Check whether a folder, or its nearest existing parent, is writable, and how much space is free.

    Args:
        folder: the folder.
        else_: the fix if it is not writable.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return "problem", f"{folder} cannot be written ({error.strerror or error}); {else_}"
    free = shutil.disk_usage(nearest).free
    text = f"{folder}, {format_bytes(free)} free"
    return ("ok", text) if free >= MIN_DISK else ("problem", f"{text}: results may not fit")


def _terminal() -> tuple[State, str]:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "θ ± ℓ1 … →".encode(encoding)
    except UnicodeEncodeError:
        return "problem", f"{encoding} has no Greek letters, which are printed as question marks; set PYTHONUTF8=1"
    return "ok", encoding
