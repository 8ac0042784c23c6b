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
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.foundation.native.cache import is_usable, make_private, seal, sum_file
from dop_lightning.foundation.processor import this_processor

log = logging.getLogger(__name__)

SOURCES = ("activate.cpp", "corruption.cpp", "join.cpp", "join_backward.cpp", "krige.cpp")
HEADERS = ("common.h", "norm.h", "branches.h")
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-Wno-psabi")
"""-fopenmp is for compiling alone: linked without it, the kernels find the OpenMP that torch has loaded, and share its
threads. Threads of a second one would wait for work while those of the first are at it. What tunes the kernels to the
processor comes besides, see :attr:`~dop_lightning.foundation.processor.Processor.tuning_flags`."""

UNTUNED = "-untuned"
"""The end of the name of kernels that run on every processor of the architecture."""


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
    """What the flags that tune the kernels depend on."""
    info, telling = Path("/proc/cpuinfo"), ("model name", "flags", "Features", "CPU implementer", "CPU part")
    lines = info.read_text().splitlines() if info.is_file() else [platform.processor()]
    return "".join([platform.machine(), *sorted({line for line in lines if line.startswith(telling)})])


def build(folder: Path) -> Path:
    """Compile the kernels into ``folder``, unless they lie there already, as they were built.

    A library that is damaged, or that others could have changed, is built anew in its place.

    They are tuned to the processor, or compiled for all of its architecture if the compiler cannot do that: GCC 12
    fails on vectors of SVE.

    Returns:
        The shared library. Its name depends on the sources, the compiler and the processor, see also :func:`is_tuned`.

    Raises:
        RuntimeError: there is no compiler that will do, or it failed, or the folder belongs to another user.
        OSError: the folder cannot be written.
    """
    make_private(folder)
    cxx, tuning = compiler(), this_processor().tuning_flags
    identity = hashlib.sha256("\0".join([*cxx, _version(cxx), _processor(), *tuning, *FLAGS]).encode())
    for name in (*HEADERS, *SOURCES):
        identity.update((Path(__file__).parent / name).read_bytes())
    tuned = folder / f"kernels-{identity.hexdigest()[:16]}.so"
    plain = tuned.with_stem(tuned.stem + UNTUNED)
    if made := next((path for path in (tuned, plain) if is_usable(path)), None):
        return made
    if tuning:
        try:
            return _make([*cxx, *tuning, *FLAGS], cxx, tuned)
        except RuntimeError:  # of the sources or the compiler: the untuned build reports it
            pass
    return _make([*cxx, *FLAGS], cxx, plain)


def is_tuned(library: Path) -> bool:
    """Return whether what :func:`build` returned is tuned to the processor."""
    return not library.stem.endswith(UNTUNED)


def _make(command: Sequence[str], linker: Sequence[str], target: Path) -> Path:
    """Compile and link ``target`` in a private folder; it is there as a whole or not at all, and its hash before it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        linked = _compile(command, linker, Path(made))
        with linked.open("rb+") as file:
            os.fsync(file.fileno())  # to load a file that a power cut has left short would end the process
        for path in (linked, seal(linked)):
            path.chmod(0o600)
        # other processes may be at the same: builds differ at most in the names of temporary files
        sum_file(linked).replace(sum_file(target))
        linked.replace(target)
    return target


def _compile(command: Sequence[str], linker: Sequence[str], folder: Path) -> Path:
    """Compile and link all sources, and return the shared library."""
    objects = [str(folder / f"{Path(name).stem}.o") for name in SOURCES]
    for name, compiled in zip(SOURCES, objects, strict=True):
        _run([*command, "-c", str(Path(__file__).parent / name), "-o", compiled])
    linked = folder / "kernels.so"
    _run([*linker, "-shared", *objects, "-o", str(linked)])
    return linked


def _run(command: list[str]) -> None:
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=english)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        told = next((line for line in lines if "error" in line), lines[0])
        raise RuntimeError(f"{Path(command[0]).name} failed: {told}")


SYMBOLS = (
    "activate",
    "add_products",
    "join",
    "join_backward",
    "krige",
    "step_corruption_float",
    "step_corruption_double",
)
"""Functions of which at least these must be in a library."""


def _loaded(path: Path) -> ctypes.CDLL:
    """Load a library.

    Raises:
        RuntimeError: it lacks a function.
        OSError: it cannot be loaded.
    """
    found = ctypes.CDLL(str(path))
    if lacking := [name for name in SYMBOLS if not hasattr(found, name)]:
        raise RuntimeError(f"{path} has no function {', '.join(lacking)}; remove it")
    return found


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or ``None`` where they cannot be compiled: the same is then done by plain torch, with one hint."""
    try:
        return _loaded(build(cache_folder()))
    except (RuntimeError, OSError) as error:
        log.warning("plain torch operations take the place of kernels, and are slower: %s", error)
        return None
