"""Merge the curves that several processes write. Each process merges when it finishes, so the last one sees all."""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dop_lightning.foundation.atomic import append_text, atomic_text
from dop_lightning.runs.folder import METRICS

CURVES = Path("checkpoints") / "curves"
"""Folder with one file of curves per batch. Only one process at a time writes a file."""

HEADER = "problem,iteration,tag,value\n"

MAX_TRIES = 10

_MARK = "#"
"""Separator between a line and its checksum."""

_LENGTH = 10
"""Length of a checksum in characters, with its separator and the newline."""


def rebuild(inputs: Callable[[], Iterable[Path]], build: Callable[[], object]) -> None:
    """Build a file from others, and repeat this if one of them changed in the meantime.

    Two processes may finish at the same time. The one that writes last may have read the inputs before the other one
    wrote its part; checking again after writing detects this.

    Args:
        inputs: lists the input files.
        build: reads the inputs and writes the file, atomically.
    """
    seen = _stamp(inputs())
    for _ in range(MAX_TRIES):
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
    """Return the modification time in nanoseconds and the size of each file. Missing files are skipped."""
    stamps = {}
    for path in paths:
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):  # being replaced
            continue
        stamps[path] = (stat.st_mtime_ns, stat.st_size)
    return stamps


def curve_files(run: Path) -> Iterator[Path]:
    """Yield the files of curves of all batches, in order."""
    folder = run / CURVES
    if folder.is_dir():
        names = [path.name for path in folder.iterdir() if path.name.endswith(".csv")]
        yield from (folder / name for name in sorted(names, key=lambda name: (len(name), name)))


def complete_lines(text: str) -> str:
    """Return ``text`` without an incomplete last line, which a process is writing or did not finish writing."""
    return text[: text.rfind("\n") + 1]


class CurveLines(NamedTuple):
    """Contents of a file of curves.

    Attributes:
        text: the intact lines, without checksums.
        damaged: number of damaged lines.
    """

    text: str
    damaged: int


def add_line_checksums(text: str, crc: int = 0) -> str:
    """Append a checksum to each line, as a fifth column.

    Each checksum continues the one of the previous line, so that a missing line is detected.

    Args:
        text: complete lines.
        crc: checksum of the previous line.
    """
    lines = []
    for line in text.splitlines():
        crc = zlib.crc32(line.encode(), crc)
        lines.append(f"{line},{_MARK}{crc:08x}\n")
    return "".join(lines)


def append_lines(path: Path, text: str) -> None:
    """Append complete lines, with their checksums, to a file of curves.

    Raises:
        OSError: the file cannot be written.
    """
    crc = 0
    if path.is_file() and path.stat().st_size >= _LENGTH:
        with path.open("rb") as file:
            file.seek(-_LENGTH, os.SEEK_END)
            end = file.read().decode("ascii", "replace")
        crc = int(end[1:-1], 16) if re.fullmatch(f"{_MARK}[0-9a-f]{{8}}\n", end) else 0
    append_text(path, add_line_checksums(text, crc))


def read_lines(path: Path) -> CurveLines:
    """Read a file of curves. An incomplete last line is skipped. Lines of earlier versions have no checksums.

    Raises:
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    lines = [line.rpartition(f",{_MARK}".encode()) for line in content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]]
    if lines and not any(mark for _, mark, _ in lines):  # written by an earlier version
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
        OSError: the file cannot be written.
    """

    def build() -> None:
        atomic_text(run / METRICS, merged_curves(run))

    rebuild(lambda: curve_files(run), build)


def merged_curves(run: Path) -> str:
    """Return the expected content of ``metrics.csv``: the complete lines of all batches."""
    return HEADER + "".join(read_lines(path).text for path in curve_files(run))
