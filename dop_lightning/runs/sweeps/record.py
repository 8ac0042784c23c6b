"""What a point has left in its folder: ``point.json``, which says what was asked for, and the results of its run."""

import json
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.sweeps.points import Point

RECORD = "point.json"
LOG = "log.txt"
SWEEP = "sweep.json"
"""In the folder of the whole sweep."""

_ENDS = ("done", "stable", "diverged")

State = Literal["to do", "started", "finished", "changed"]


def state(point: Point) -> State:
    """How far a point is.

    Returns:
        ``finished`` where all its problems have come to an end, of the very run that is asked for; ``changed`` where
        the folder holds a run that was asked for by other settings or config files; ``started`` and ``to do``.

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
    """Whether all problems of a run have come to an end."""
    folder = RunFolder(run)
    try:
        results = [folder.result(problem["name"]) for problem in folder.manifest().problems]
    except (FileNotFoundError, NotADirectoryError, ValueError):  # dop fit reports damaged files
        return False
    return bool(results) and all(result.get("status") in _ENDS for result in results)


def recorded(run: Path) -> dict[str, Any]:
    """What ``point.json`` says: axes, command and digest; empty if there is none, or if it is damaged."""
    try:
        value = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def begin(point: Point) -> str:
    """Say in the folder of a point what is asked for, before it is run.

    Where a run was started there before, its record stands until the new one has ended well: ``dop fit`` may refuse
    the folder, and what is in it would then pass for what was asked for.

    Returns:
        The digest of what is asked for now, for :func:`settle`.
    """
    digest = point.digest()
    if not RunFolder(point.folder).has_run:
        settle(point, digest)
    return digest


def settle(point: Point, digest: str) -> None:
    """Say in the folder of a point that it holds the run of this digest."""
    if recorded(point.folder).get("digest") == digest:
        return
    atomic_json(point.folder / RECORD, {"axes": point.axes, "command": point.command, "digest": digest})


def open_log(point: Point) -> BinaryIO:
    """Open the log of a point, at its end, with the command of the point written to it."""
    log = (point.folder / LOG).open("ab")
    log.write(f"$ {point.command}\n".encode())
    log.flush()
    return log
