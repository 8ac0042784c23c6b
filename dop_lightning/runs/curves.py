"""What several processes leave of a run, put together by whoever finishes: the last one sees all of it."""

from collections.abc import Callable, Iterable
from pathlib import Path

from dop_lightning.foundation.atomic import atomic_text
from dop_lightning.runs.folder import METRICS

CURVES = Path("checkpoints") / "curves"
"""Where each batch has the rows of its problems, written by one process at a time."""

HEADER = "problem,iteration,tag,value\n"

TRIES = 10


def rebuild(inputs: Callable[[], Iterable[Path]], build: Callable[[], object]) -> None:
    """Build a file out of others, again if one of them has changed in the meantime.

    Two processes may finish at the same time. The one that writes last might have read before the other had left its
    part; looking once more after writing, it sees that.

    Args:
        inputs: lists the files that are read.
        build: reads them and writes, atomically.
    """
    seen = _stamps(inputs())
    for _ in range(TRIES):
        build()
        now = _stamps(inputs())
        if now == seen:
            return
        seen = now


def _stamps(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    stamps = {}
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:  # replaced at this very moment
            continue
        stamps[path] = (stat.st_mtime_ns, stat.st_size)
    return stamps


def curve_files(run: Path) -> list[Path]:
    """The files of the batches, in their order."""
    return sorted((run / CURVES).glob("*.csv"), key=lambda path: (len(path.name), path.name))


def whole_lines(text: str) -> str:
    """``text`` without a last line that has no end: a process is writing it, or was stopped while it did."""
    return text[: text.rfind("\n") + 1]


def merge_curves(run: Path) -> None:
    """Write ``metrics.csv``: the curves of all problems, batch by batch.

    Raises:
        OSError: it cannot be written.
    """

    def build() -> None:
        texts = (path.read_text(encoding="utf-8") for path in curve_files(run))
        atomic_text(run / METRICS, HEADER + "".join(map(whole_lines, texts)))

    rebuild(lambda: curve_files(run), build)
