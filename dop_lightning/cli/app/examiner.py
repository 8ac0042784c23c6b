"""The other end of :mod:`~dop_lightning.cli.app.examine`: starts its process, asks, and starts it again if it dies."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dop_lightning.cli.app.settings import Kind

SLOW = 120.0
"""Seconds after which a file cannot be read."""


class Examiner:
    """Asks one question at a time. Its methods block, and may be called from any thread.

    Args:
        log: file for what the process prints besides.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the process, which takes seconds to be ready, without waiting for it."""
        with self._lock:
            self._started()

    def file(self, kind: Kind, path: Path) -> dict[str, Any]:
        """Return what a file holds.

        Raises:
            ValueError: it cannot be read; the line is that of the command line.
        """
        found = self._ask({"do": "examine", "kind": kind, "path": str(path)}, path.name)
        if "line" in found:
            raise ValueError(found["line"])
        return found

    def estimate(self, path: Path) -> dict[str, Any]:
        """Return an estimate of the damage of a photograph; its share is ``None`` if there is no estimate."""
        try:
            found = self._ask({"do": "estimate", "path": str(path)}, path.name)
        except ValueError:
            found = {}
        return found if "damaged" in found else {"damaged": None, "likely": None}

    def times(self, shape: Sequence[int], names: Sequence[str]) -> dict[str, float]:
        """Return the seconds of presets for an image ``(C, H, W)``, empty if they cannot be measured."""
        try:
            found = self._ask({"do": "times", "shape": list(shape), "names": list(names)}, "times")
        except ValueError:
            return {}
        return {} if "line" in found else found

    def close(self) -> None:
        """End the process."""
        self._is_closed = True
        if self._process is not None:
            _end(self._process)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                _end(self._process)
            if self._is_closed:
                raise ValueError("dop app is about to end")
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "dop_lightning.cli.app.examine"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
        return self._process

    def _ask(self, request: dict[str, Any], name: str) -> dict[str, Any]:
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(SLOW, process.kill)
            watch.start()
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            finally:
                watch.cancel()
            if not line:
                _end(process)
                raise ValueError(f"{name}: the file cannot be read: its reader has crashed or takes too long")
            found: dict[str, Any] = json.loads(line)
            return found


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process, if it is still there, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # a request that nobody reads any more
                pipe.close()
