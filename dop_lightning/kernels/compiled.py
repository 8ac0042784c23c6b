"""The compiled kernels: built once for a machine, by its own C++ compiler, and kept in the user's cache."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = ("activate.cpp", "join.cpp", "join_backward.cpp")
HEADERS = ("common.h", "norm.h", "branches.h")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-Wno-psabi")
"""-fopenmp is for compiling alone: linked without it, the kernels find the OpenMP that torch has loaded, and share its
threads. Threads of a second one would wait for work while those of the first are at it."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/dop_lightning``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dop_lightning"


def compiler() -> str | None:
    """The C++ compiler: ``$CXX``, or ``g++``, whose OpenMP is the one that torch brings along on Linux."""
    asked = os.environ.get("CXX")
    return shutil.which(asked or "g++")


def _processor() -> str:
    """What ``-march=native`` depends on."""
    info, telling = Path("/proc/cpuinfo"), ("model name", "flags", "Features", "CPU implementer", "CPU part")
    lines = info.read_text().splitlines() if info.is_file() else [platform.processor()]
    return "".join([platform.machine(), *sorted({line for line in lines if line.startswith(telling)})])


def build(folder: Path) -> Path:
    """Compile the kernels into ``folder``, unless they lie there already.

    Returns:
        The shared library. Its name tells sources, compiler and processor.

    Raises:
        RuntimeError: there is no compiler, or it failed.
        OSError: the folder cannot be written.
    """
    cxx = compiler()
    if cxx is None:
        asked = os.environ.get("CXX")
        raise RuntimeError(f"the compiler {asked} of $CXX was not found" if asked else "g++ was not found")
    here = Path(__file__).parent
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False).stdout
    identity = hashlib.sha256("\0".join([version, _processor(), *FLAGS]).encode())
    for name in (*HEADERS, *SOURCES):
        identity.update((here / name).read_bytes())
    target = folder / f"kernels-{identity.hexdigest()[:16]}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        objects = [str(Path(made) / f"{Path(name).stem}.o") for name in SOURCES]
        for name, compiled in zip(SOURCES, objects, strict=True):
            _run([cxx, *FLAGS, "-c", str(here / name), "-o", compiled])
        linked = Path(made) / "kernels.so"
        _run([cxx, "-shared", *objects, "-o", str(linked)])
        with linked.open("rb+") as file:
            os.fsync(file.fileno())  # to load a file that a power cut has left short would end the process
        linked.replace(target)  # other processes may be at the same
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
        raise RuntimeError(f"{Path(command[0]).name} failed: {first}")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or ``None`` where they cannot be compiled: the same is then done by plain torch, with one hint."""
    try:
        path = build(cache_folder())
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # spoilt
            path.unlink()
            return ctypes.CDLL(str(build(cache_folder())))
    except (RuntimeError, OSError) as error:
        log.warning("networks run by plain torch operations, more slowly: %s", error)
        return None
