"""Client of :mod:`~dop_lightning.cli.app.examine`: starts its process, sends requests, and restarts it if it dies."""

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
"""Seconds after which reading a file fails."""


class Examiner:
    """Sends one request at a time. The methods block, and may be called from any thread.

    Args:
        log: file for other output of the process.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the process without waiting until it is ready, which takes seconds."""
        with self._lock:
            self._ensure_started()

    def file(self, kind: Kind, path: Path) -> dict[str, Any]:
        """Describe the content of a file.

        Raises:
            ValueError: the file cannot be read; the message is that of the command line.
        """
        found = self._request({"do": "examine", "kind": kind, "path": str(path)}, path.name)
        if "line" in found:
            raise ValueError(found["line"])
        return found

    def estimate(self, path: Path) -> dict[str, Any]:
        """Estimate the damage of a photograph; ``damaged`` is ``None`` if that fails."""
        try:
            found = self._request({"do": "estimate", "path": str(path)}, path.name)
        except ValueError:
            found = {}
        return found if "damaged" in found else {"damaged": None, "likely": None}

    def times(self, shape: Sequence[int], names: Sequence[str]) -> dict[str, float]:
        """Estimate the seconds of presets for an image of shape (C, H, W); empty if they cannot be measured."""
        try:
            found = self._request({"do": "times", "shape": list(shape), "names": list(names)}, "times")
        except ValueError:
            return {}
        return {} if "line" in found else found

    def close(self) -> None:
        """End the process."""
        self._is_closed = True
        if self._process is not None:
            _terminate(self._process)

    def _ensure_started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                _terminate(self._process)
            if self._is_closed:
                raise ValueError("dop app is shutting down")
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

    def _request(self, request: dict[str, Any], name: str) -> dict[str, Any]:
        with self._lock:
            process = self._ensure_started()
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
                _terminate(process)
                raise ValueError(f"{name}: the file cannot be read: its reader crashed or took too long")
            found: dict[str, Any] = json.loads(line)
            return found


def _terminate(process: subprocess.Popen[str]) -> None:
    """Kill a process if it still runs, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # unread requests
                pipe.close()
