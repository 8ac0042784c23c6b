"""Progress for other programs: a small file that is replaced while a run is at work."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from dop_lightning.foundation.atomic import write_atomically

VARIABLE = "DOP_PROGRESS"
"""The environment variable that names the file."""

PAUSE = 0.4
"""Seconds between two replacements, at least."""


class ProgressFile:
    """Writes ``{"done": …, "maximum": …, "seconds_left": …}``, a JSON object, into one file.

    ``done`` is the mean number of iterations done over all entries, a float. ``maximum`` is null for runs without a
    maximum, ``seconds_left`` before the first measurement. A file that cannot be written does not end the run.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._due = 0.0

    @classmethod
    def of_environment(cls) -> "ProgressFile | None":
        """Return the file that the environment variable ``DOP_PROGRESS`` names, if it is set."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path)) if path else None

    def write(self, done: float, maximum: int | None, seconds_left: float | None) -> None:
        """Replace the file, unless it was replaced less than :data:`PAUSE` ago and the run is not at its end."""
        now = time.monotonic()
        if now < self._due and done != maximum:
            return
        self._due = now + PAUSE
        text = json.dumps({"done": done, "maximum": maximum, "seconds_left": seconds_left})
        with suppress(OSError):
            write_atomically(self.path, lambda file: file.write(text.encode()), durable=False)
