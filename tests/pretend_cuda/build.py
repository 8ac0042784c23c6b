"""Compile device.cpp against the installed PyTorch, once per version of both."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")


def torch_folder() -> Path:
    """Return the folder of the installed PyTorch, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise RuntimeError("PyTorch is not installed")
    return Path(found.origin).parent


def cache_folder() -> Path:
    """Return the folder of compiled devices, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dop_lightning" / "pretend_cuda"


def build() -> Path:
    """Return the compiled device, after compiling it if necessary.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    torch = torch_folder()
    version = (torch / "version.py").read_bytes()
    key = hashlib.sha256(SOURCE.read_bytes() + version + str(torch).encode() + sys.version.encode()).hexdigest()[:16]
    library = cache_folder() / f"device-{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        command = [
            os.environ.get("CXX", "g++"),
            "-O1",
            "-shared",
            "-fPIC",
            "-std=c++20",
            "-w",
            f"-I{torch / 'include'}",
        ]
        command += [str(SOURCE), "-o", str(made), f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RuntimeError(f"cannot build the simulated CUDA device: {error}; install g++ or set CXX") from None
        if done.returncode != 0:
            raise RuntimeError(f"cannot build the simulated CUDA device:\n{' '.join(command)}\n{done.stderr[-3000:]}")
        made.replace(library)  # atomic, because other processes may be building it, too
    return library
