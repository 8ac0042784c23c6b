"""What several processes leave of a run, put together by whoever finishes: the last one sees all of it."""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dop_lightning.foundation.atomic import append_text, atomic_text
from dop_lightning.runs.folder import METRICS

CURVES = Path("checkpoints") / "curves"
"""Where each batch has the rows of its problems, written by one process at a time."""

HEADER = "problem,iteration,tag,value\n"

TRIES = 10

_MARK = "#"
"""What the checksum of a line begins with."""

_LENGTH = 10
"""Characters of a checksum, with its mark and the end of the line."""


def rebuild(inputs: Callable[[], Iterable[Path]], build: Callable[[], object]) -> None:
    """Build a file out of others, again if one of them has changed in the meantime.

    Two processes may finish at the same time. The one that writes last might have read before the other had left its
    part; looking once more after writing, it sees that.

    Args:
        inputs: lists the files that are read.
        build: reads them and writes, atomically.
    """
    seen = _stamp(inputs())
    for _ in range(TRIES):
        build()
        now = _stamp(inputs())
        if now == seen:
            return
        seen = now


def _stamp(paths: Iterable[Path]) -> tuple[int, int]:
    """Return how many of the files there are, and a hash of all :func:`file_stamps`, which may be thousands."""
    count = total = 0
    for path in paths:
        for found, stamp in file_stamps([path]).items():
            count, total = count + 1, total + hash((str(found), stamp))
    return count, total


def file_stamps(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return when files were last written, in nanoseconds, and their sizes; those that are missing are left out."""
    stamps = {}
    for path in paths:
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):  # replaced at this very moment
            continue
        stamps[path] = (stat.st_mtime_ns, stat.st_size)
    return stamps


def curve_files(run: Path) -> Iterator[Path]:
    """Yield the files of the batches, in their order."""
    folder = run / CURVES
    if folder.is_dir():
        names = [path.name for path in folder.iterdir() if path.name.endswith(".csv")]
        yield from (folder / name for name in sorted(names, key=lambda name: (len(name), name)))


def whole_lines(text: str) -> str:
    """``text`` without a last line that has no end: a process is writing it, or was stopped while it did."""
    return text[: text.rfind("\n") + 1]


class CurveLines(NamedTuple):
    """The contents of a file of curves.

    Attributes:
        text: the lines that are whole, without their checksums.
        damaged: how many others there are.
    """

    text: str
    damaged: int


def seal_lines(text: str, crc: int = 0) -> str:
    """Add to each line its checksum, a fifth column. It continues that of the line before, so that none can be missing.

    Args:
        text: whole lines.
        crc: the checksum of the line before.
    """
    lines = []
    for line in text.splitlines():
        crc = zlib.crc32(line.encode(), crc)
        lines.append(f"{line},{_MARK}{crc:08x}\n")
    return "".join(lines)


def append_lines(path: Path, text: str) -> None:
    """Append whole lines with their checksums to a file of curves.

    Raises:
        OSError: it cannot be written.
    """
    crc = 0
    if path.is_file() and path.stat().st_size >= _LENGTH:
        with path.open("rb") as file:
            file.seek(-_LENGTH, os.SEEK_END)
            end = file.read().decode("ascii", "replace")
        crc = int(end[1:-1], 16) if re.fullmatch(f"{_MARK}[0-9a-f]{{8}}\n", end) else 0
    append_text(path, seal_lines(text, crc))


def read_lines(path: Path) -> CurveLines:
    """Read a file of curves. A last line without an end is left out. Lines of earlier versions have no checksums.

    Raises:
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    lines = [line.rpartition(f",{_MARK}".encode()) for line in content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]]
    if lines and not any(mark for _, mark, _ in lines):  # of an earlier version
        return CurveLines("".join(f"{line.decode('utf-8', 'replace')}\n" for *_, line in lines), 0)
    good, damaged, crc = [], 0, 0
    for line, _, mark in lines:
        expected = zlib.crc32(line, crc)
        if mark == f"{expected:08x}".encode():
            good.append(f"{line.decode()}\n")
        else:
            damaged += 1
        try:
            crc = int(mark, 16)
        except ValueError:
            crc = expected
    return CurveLines("".join(good), damaged)


def merge_curves(run: Path) -> None:
    """Write ``metrics.csv``: the curves of all problems, batch by batch.

    Raises:
        OSError: it cannot be written.
    """

    def build() -> None:
        atomic_text(run / METRICS, merged_curves(run))

    rebuild(lambda: curve_files(run), build)


def merged_curves(run: Path) -> str:
    """Return what ``metrics.csv`` should contain: the whole lines of all batches."""
    return HEADER + "".join(read_lines(path).text for path in curve_files(run))
