"""Compile kernels once per machine, with its C++ compiler, and load them from the user's cache."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.foundation.machine import usable_cores
from dop_lightning.foundation.native.cache import is_usable, make_private, seal, sum_file
from dop_lightning.foundation.processor import this_processor

log = logging.getLogger(__name__)

SOURCES = (
    "activate.cpp",
    "corruption.cpp",
    "filters.cpp",
    "join.cpp",
    "join_backward.cpp",
    "krige.cpp",
    "mixture.cpp",
    "muon.cpp",
    "noise.cpp",
)
HEADERS = ("common.h", "norm.h", "branches.h")
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-Wno-psabi")
"""Compiler flags. ``-fopenmp`` is not passed to the linker, so that the kernels use the OpenMP library that torch has
loaded, and share its threads. The threads of a second library would spin while those of the first are working. See
:attr:`~dop_lightning.foundation.processor.Processor.tuning_flags` for the flags that depend on the processor."""

UNTUNED = "-untuned"
"""End of the name of a library that runs on every processor of the architecture."""


def cache_folder() -> Path:
    """Return the folder of compiled kernels: ``$XDG_CACHE_HOME/dop_lightning``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dop_lightning"


def compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, or ``g++``, whose OpenMP library torch uses on Linux.

    Raises:
        RuntimeError: no compiler was found, or it uses another OpenMP library than torch.
    """
    requested = shlex.split(os.environ.get("CXX", ""))
    if not requested and sys.platform != "linux":
        raise RuntimeError(f"kernels are compiled with g++ on Linux only, got {sys.platform}")
    command = requested or ["g++"]
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"the compiler {command[0]} in $CXX was not found" if requested else "g++ was not found")
    if "clang" in _version(command).lower():
        raise RuntimeError(f"{command[0]} is clang, whose OpenMP differs from that of torch; use g++ 9 or later")
    return command


def _version(command: list[str]) -> str:
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout


def _processor_properties() -> str:
    """Return the properties of the processor that determine the effect of the tuning flags."""
    info, telling = Path("/proc/cpuinfo"), ("model name", "flags", "Features", "CPU implementer", "CPU part")
    lines = info.read_text().splitlines() if info.is_file() else [platform.processor()]
    return "".join([platform.machine(), *sorted({line for line in lines if line.startswith(telling)})])


def build(folder: Path) -> Path:
    """Compile the kernels into ``folder``, unless it already contains an intact build.

    A library that is damaged or that other users can modify is built again.

    The kernels are tuned to the processor. If the compiler fails to do that, they are compiled for the architecture in
    general: GCC 12 fails on SVE vectors.

    Returns:
        The shared library. Its name depends on the sources, the compiler and the processor. See also :func:`is_tuned`.

    Raises:
        RuntimeError: there is no suitable compiler, the compiler failed, or the folder belongs to another user.
        OSError: the folder cannot be written.
    """
    make_private(folder)
    cxx, tuning = compiler(), this_processor().tuning_flags
    identity = hashlib.sha256("\0".join([*cxx, _version(cxx), _processor_properties(), *tuning, *FLAGS]).encode())
    for name in (*HEADERS, *SOURCES):
        identity.update((Path(__file__).parent / name).read_bytes())
    tuned = folder / f"kernels-{identity.hexdigest()[:16]}.so"
    plain = tuned.with_stem(tuned.stem + UNTUNED)
    if made := next((path for path in (tuned, plain) if is_usable(path)), None):
        return made
    if tuning:
        try:
            return _build([*cxx, *tuning, *FLAGS], cxx, tuned)
        except RuntimeError:  # other errors are raised again by the untuned build
            pass
    return _build([*cxx, *FLAGS], cxx, plain)


def is_tuned(library: Path) -> bool:
    """Return whether a library returned by :func:`build` is tuned to the processor."""
    return not library.stem.endswith(UNTUNED)


def _build(command: Sequence[str], linker: Sequence[str], target: Path) -> Path:
    """Compile and link ``target`` atomically, in a temporary folder. Its hash is written before it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        linked = _compile(command, linker, Path(made))
        with linked.open("rb+") as file:
            os.fsync(file.fileno())  # loading a file truncated by a power failure would end the process
        for path in (linked, seal(linked)):
            path.chmod(0o600)
        # other processes may do the same concurrently: builds differ at most in the names of temporary files
        sum_file(linked).replace(sum_file(target))
        linked.replace(target)
    return target


def _compile(command: Sequence[str], linker: Sequence[str], folder: Path) -> Path:
    """Compile all sources concurrently, link them, and return the shared library."""
    objects = [str(folder / f"{Path(name).stem}.o") for name in SOURCES]
    sources = [str(Path(__file__).parent / name) for name in SOURCES]
    _run([[*command, "-c", source, "-o", made] for source, made in zip(sources, objects, strict=True)], folder)
    linked = folder / "kernels.so"
    _run([[*linker, "-shared", *objects, "-o", str(linked)]], folder)
    return linked


def _run(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run commands concurrently, at most one per usable core.

    If one of them fails or the user interrupts, the others are killed.

    Raises:
        RuntimeError: a command failed.
    """
    waiting = [_Command(command, folder / f"{k}.log") for k, command in enumerate(commands)]
    running: list[_Command] = []
    try:
        while waiting or running:
            while waiting and len(running) < usable_cores():
                running.append(waiting.pop(0).start())
            time.sleep(0.01)
            running = [command for command in running if not command.has_ended()]
    finally:
        for command in running:
            command.kill()


class _Command:
    """A command, which runs in a process group: a compiler starts processes itself."""

    def __init__(self, command: Sequence[str], log_file: Path) -> None:
        self._command = command
        self._log = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "_Command":
        english = {**os.environ, "LC_ALL": "C", "TMPDIR": str(self._log.parent)}
        with self._log.open("wb") as log_file:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_file,
                env=english,
                start_new_session=True,
            )
        return self

    def has_ended(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        if status:
            lines = self._log.read_text(errors="replace").strip().splitlines() or [f"exit status {status}"]
            message = next((line for line in lines if "error" in line), lines[0])
            raise RuntimeError(f"{Path(self._command[0]).name} failed: {message}")
        return status is not None

    def kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            self._process.wait()


SYMBOLS = (
    "activate",
    "add_normal",
    "add_products",
    "convolve_line",
    "join",
    "join_backward",
    "krige",
    "refit_mixture",
    "step_corruption_float",
    "step_corruption_double",
    "step_muon",
    "window_medians",
)
"""Functions that a library must contain."""


def _load_library(path: Path) -> ctypes.CDLL:
    """Load a library.

    Raises:
        RuntimeError: a function is missing.
        OSError: the library cannot be loaded.
    """
    found = ctypes.CDLL(str(path))
    if lacking := [name for name in SYMBOLS if not hasattr(found, name)]:
        raise RuntimeError(f"{path} lacks the functions {', '.join(lacking)}; remove the file")
    return found


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the kernels. If they cannot be compiled, log a warning and return ``None``, for PyTorch operations."""
    try:
        return _load_library(build(cache_folder()))
    except (RuntimeError, OSError) as error:
        log.warning("using PyTorch operations instead of compiled kernels, which is slower: %s", error)
        return None
