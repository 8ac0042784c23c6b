"""The compiled kernels: built once for a machine, by its own C++ compiler, and kept in the user's cache."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = ("activate.cpp", "join.cpp", "join_backward.cpp", "krige.cpp")
HEADERS = ("common.h", "norm.h", "branches.h")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-Wno-psabi")
"""-fopenmp is for compiling alone: linked without it, the kernels find the OpenMP that torch has loaded, and share its
threads. Threads of a second one would wait for work while those of the first are at it."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/dop_lightning``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dop_lightning"


def compiler() -> list[str]:
    """The command of the C++ compiler: ``$CXX``, or ``g++``, whose OpenMP is the one that torch brings along on Linux.

    Raises:
        RuntimeError: there is none, or not one whose OpenMP that is.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    if not asked and sys.platform != "linux":
        raise RuntimeError(f"kernels are compiled by g++ on Linux alone, and this is {sys.platform}")
    command = asked or ["g++"]
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"the compiler {command[0]} of $CXX was not found" if asked else "g++ was not found")
    if "clang" in _version(command).lower():
        raise RuntimeError(f"{command[0]} is clang, whose OpenMP is not that of torch: g++ (from version 9) is needed")
    return command


def _version(command: list[str]) -> str:
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout


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
        RuntimeError: there is no compiler that will do, or it failed.
        OSError: the folder cannot be written.
    """
    cxx = compiler()
    here = Path(__file__).parent
    identity = hashlib.sha256("\0".join([*cxx, _version(cxx), _processor(), *FLAGS]).encode())
    for name in (*HEADERS, *SOURCES):
        identity.update((here / name).read_bytes())
    target = folder / f"kernels-{identity.hexdigest()[:16]}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        objects = [str(Path(made) / f"{Path(name).stem}.o") for name in SOURCES]
        for name, compiled in zip(SOURCES, objects, strict=True):
            _run([*cxx, *FLAGS, "-c", str(here / name), "-o", compiled])
        linked = Path(made) / "kernels.so"
        _run([*cxx, "-shared", *objects, "-o", str(linked)])
        with linked.open("rb+") as file:
            os.fsync(file.fileno())  # to load a file that a power cut has left short would end the process
        linked.replace(target)  # other processes may be at the same
    return target


def _run(command: list[str]) -> None:
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=english)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        told = next((line for line in lines if "error" in line), lines[0])
        raise RuntimeError(f"{Path(command[0]).name} failed: {told}")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or ``None`` where they cannot be compiled: the same is then done by plain torch, with one hint."""
    try:
        path = build(cache_folder())
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # spoilt
            path.unlink(missing_ok=True)  # another process may have found the same
            return ctypes.CDLL(str(build(cache_folder())))
    except (RuntimeError, OSError) as error:
        log.warning("plain torch operations take the place of kernels, and are slower: %s", error)
        return None
