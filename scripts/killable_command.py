"""Run ``dop`` in a forked child of this process, which can be killed or paused before any file operation.

A child starts in a fraction of a second, because it inherits all modules. SIGKILL ends it like any other process,
without cleaning up.
"""

import errno
import gc
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

WRITING = os.O_WRONLY | os.O_RDWR
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.truncate")
"""Audit events of operations that change files, in addition to opening files and creating folders."""

KINDS = ("kill", "torn", "full", "SIGTERM", "SIGINT")


@dataclass(frozen=True)
class Stop:
    """An event before an operation that changes files.

    Attributes:
        kind: ``kill`` sends SIGKILL; ``torn`` does the same and writes a partial line if a file is being appended to;
            ``full`` simulates a full disk from then on; ``pause`` sends SIGSTOP; others are names of signals.
        at: number of the operation, starting at 1.
    """

    kind: str
    at: int


class Ended(NamedTuple):
    """Result of a command.

    Attributes:
        status: exit status, negative for a signal.
        text: captured output.
    """

    status: int
    text: str


class Child:
    """A command in a forked child.

    Args:
        arguments: arguments of ``dop``.
        home: absolute path; operations on files in it are counted, except heartbeats, which depend on time.
        stop: event to trigger, if any.
    """

    def __init__(self, arguments: Sequence[str], home: Path, stop: Stop | None = None) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # otherwise garbage collection in the child copies memory
        self._pid = os.fork()
        if not self._pid:
            _be_child(list(arguments), home, stop, self._said.fileno())

    def wait(self) -> Ended:
        """Wait until it ends."""
        _, status = os.waitpid(self._pid, 0)
        return self._ended(status)

    def wait_for_pause(self) -> Ended | None:
        """Wait until it is paused. If it ends instead, return its result."""
        _, status = os.waitpid(self._pid, os.WUNTRACED)
        return None if os.WIFSTOPPED(status) else self._ended(status)

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._pid, number)

    def _ended(self, status: int) -> Ended:
        with self._said as file:
            file.seek(0)
            return Ended(os.waitstatus_to_exitcode(status), file.read().decode("utf-8", "replace"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._said.closed:  # an error occurred before its end
            self.send(signal.SIGKILL)
            self.wait()


def call(arguments: Sequence[str], home: Path, stop: Stop | None = None) -> Ended:
    """Run a command in a child, and wait for it."""
    return Child(arguments, home, stop).wait()


def _be_child(arguments: list[str], home: Path, stop: Stop | None, output: int) -> None:
    """Run a command with its output in a file, and exit this process."""
    status = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        from dop_lightning.cli.main import main as dop

        if stop is not None:
            sys.addaudithook(_Stopper(stop, f"{home}{os.sep}"))
        status = dop(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Stopper:
    """Count file operations, and trigger the event before one of them."""

    def __init__(self, stop: Stop, home: str) -> None:
        self._stop, self._home, self._count = stop, home, 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in ("open", "os.mkdir", *CHANGES) or not isinstance(args[0], str | os.PathLike):
            return
        path = os.fspath(args[0])
        if not path.startswith(self._home) or "/processes/" in path:
            return
        if (event == "open" and not args[2] & WRITING) or (event == "os.mkdir" and Path(path).is_dir()):
            return
        self._count += 1
        kind = self._stop.kind
        if kind == "full":
            if self._count >= self._stop.at and event in ("open", "os.mkdir"):
                raise OSError(errno.ENOSPC, "No space left on device", path)
        elif self._count == self._stop.at:
            if kind == "torn" and event == "open" and args[2] & os.O_APPEND:
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
                os.write(descriptor, b"a torn line, 1")
                os.close(descriptor)
            number = {"kill": "SIGKILL", "torn": "SIGKILL", "pause": "SIGSTOP"}.get(kind, kind)
            os.kill(os.getpid(), signal.Signals[number])
