"""Run Python programs in forks of a process that has imported PyTorch and Lightning.

A new process spends seconds of processor time on these imports. A fork has them from the start.
"""

import atexit
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class WarmPython:
    """A server that forks one process per request, with the environment and the working directory of the caller."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.suites.warm"]
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, program: Path, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Run a program like ``python program arguments``, and return its status and output.

        Raises:
            subprocess.TimeoutExpired: it took longer than ``timeout`` seconds, and was killed.
        """
        command = [str(program), *arguments]
        with tempfile.TemporaryDirectory() as folder:
            printed = [f"{folder}/{name}" for name in ("out", "err")]
            self._send(
                command=command, cwd=str(Path.cwd()), environment=dict(os.environ), printed=printed, seconds=timeout
            )
            status = self._receive()
            texts = [Path(file).read_text(encoding="utf-8") for file in printed]
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout, *texts)
        return subprocess.CompletedProcess(command, status, *texts)

    def close(self) -> None:
        """Stop the server."""
        self._server.communicate("")

    def _send(self, **request: Any) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()

    def _receive(self) -> int | None:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())


@functools.cache
def warm_python() -> WarmPython:
    """Return the server of this process, which stops at exit."""
    server = WarmPython()
    atexit.register(server.close)
    return server


def serve() -> Sequence[str] | None:
    """Serve requests until the input ends; in a fork, return the command of its request."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(**request)
            return request["command"]
        print(json.dumps(wait(child, request["seconds"])), flush=True)
    return None


def become(command: Sequence[str], cwd: str, environment: dict[str, str], printed: Sequence[str], **_: Any) -> None:
    """Make this process equivalent to a new one."""
    import torch

    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, file in enumerate(printed, 1):
        with Path(file).open("w") as stream:
            os.dup2(stream.fileno(), number)
    sys.argv[:] = command
    sys.path[0] = str(Path(command[0]).parent)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))


def wait(child: int, seconds: float) -> int | None:
    """Return the exit status of a child, negative for a signal, or ``None`` if it was killed after some seconds."""
    late = False

    def kill(*_: object) -> None:
        nonlocal late
        late = True
        os.killpg(child, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    return None if late else os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    import dop_lightning.cli.experiments.lightning_cli  # noqa: F401  # PyTorch, Lightning and jsonargparse

    if (wanted := serve()) is not None:
        runpy.run_path(wanted[0], run_name="__main__")
