"""Progress for other programs: a small file that is replaced during a run."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from dop_lightning.foundation.atomic import write_atomically

VARIABLE = "DOP_PROGRESS"
"""Environment variable with the path of the file."""

PAUSE = 0.4
"""Minimum time between two replacements, in seconds."""


class ProgressFile:
    """Write ``{"done": …, "maximum": …, "seconds_left": …}``, a JSON object, to a file.

    ``done`` is the number of iterations done, averaged over all entries, a float. ``maximum`` is null for unlimited
    runs, and ``seconds_left`` is null before the first measurement. Errors of writing do not end the run.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._due = 0.0

    @classmethod
    def of_environment(cls) -> "ProgressFile | None":
        """Return the file that the environment variable ``DOP_PROGRESS`` specifies; ``None`` if it is not set."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path)) if path else None

    def write(self, done: float, maximum: int | None, seconds_left: float | None) -> None:
        """Replace the file, unless it was replaced less than :data:`PAUSE` ago and the run has not ended."""
        now = time.monotonic()
        if now < self._due and done != maximum:
            return
        self._due = now + PAUSE
        text = json.dumps({"done": done, "maximum": maximum, "seconds_left": seconds_left})
        with suppress(OSError):
            write_atomically(self.path, lambda file: file.write(text.encode()), durable=False)
