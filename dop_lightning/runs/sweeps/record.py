"""Record of a point in its folder: ``point.json`` with the requested settings, and the results of its run."""

import json
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.sweeps.points import Point

RECORD = "point.json"
LOG = "log.txt"
SWEEP = "sweep.json"
"""``sweep.json`` is in the folder of the sweep; the other files are in the folder of a point."""

_ENDS = ("done", "stable", "diverged")

State = Literal["to do", "started", "finished", "changed"]


def state(point: Point) -> State:
    """Return the state of a point.

    Returns:
        ``finished`` if all problems of the requested run have ended; ``changed`` if the folder contains a run with
        other settings or config files; otherwise ``started`` or ``to do``.

    Raises:
        OSError: a config file cannot be read.
    """
    digest = point.digest()
    if not RunFolder(point.folder).has_run:
        return "to do"
    if recorded(point.folder).get("digest") != digest:
        return "changed"
    return "finished" if is_complete(point.folder) else "started"


def is_complete(run: Path) -> bool:
    """Return whether all problems of a run have ended."""
    folder = RunFolder(run)
    try:
        results = [folder.result(problem["name"]) for problem in folder.manifest().problems]
    except (FileNotFoundError, NotADirectoryError, ValueError):  # dop fit reports damaged files
        return False
    return bool(results) and all(result.get("status") in _ENDS for result in results)


def recorded(run: Path) -> dict[str, Any]:
    """Return the content of ``point.json``: axes, command and digest; empty if it is missing or damaged."""
    try:
        value = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def begin(point: Point) -> str:
    """Record the requested settings in the folder of a point before it is run.

    If the folder already contains a run, its record is kept until the new run has ended successfully: ``dop fit`` may
    refuse the folder, and its results must not be attributed to the new settings.

    Returns:
        The digest of the requested settings, for :func:`record_digest`.
    """
    digest = point.digest()
    if not RunFolder(point.folder).has_run:
        record_digest(point, digest)
    return digest


def record_digest(point: Point, digest: str) -> None:
    """Record that the folder of a point contains the run with this digest."""
    if recorded(point.folder).get("digest") == digest:
        return
    atomic_json(point.folder / RECORD, {"axes": point.axes, "command": point.command, "digest": digest})


def open_log(point: Point) -> BinaryIO:
    """Open the log of a point for appending, and write the command of the point to it."""
    log = (point.folder / LOG).open("ab")
    log.write(f"$ {point.command}\n".encode())
    log.flush()
    return log
