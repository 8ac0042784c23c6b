"""Tables of numbers as text, as spreadsheets, pandas, R and NumPy write them."""

import csv
import io
import math
import re
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dop_lightning.foundation.atomic import atomic_text

_MISSING = ("", "nan", "na")


class TableLabels(NamedTuple):
    """What a table has around its numbers.

    Attributes:
        comments: lines above it.
        header: the row above the numbers, its corner included; none where there is none.
        beside: the label of each row; none where there are none.
        separator: of cells.
    """

    comments: list[str]
    header: list[list[str]]
    beside: list[list[str]]
    separator: str


class Table(NamedTuple):
    """What a table holds.

    Attributes:
        values: ``(n, m)``, float64, NaN where missing.
        labels: what stands around them.
    """

    values: np.ndarray
    labels: TableLabels


def read_table(path: Path) -> Table:
    """Read a text table of numbers.

    Cells are parted by a tab, a semicolon, a comma or blanks: the first of these, in this order, that the last row
    has. Empty cells, ``nan`` and ``NA`` are missing. Lines at the top that start with ``#`` are comments. A first row
    without any number is a header, a first column without any number holds labels. Around an empty corner, and below a
    header that is one cell shorter than the rows, labels may be numbers too.

    Args:
        path: a text file in UTF-8.

    Raises:
        ValueError: there is no row, a cell is no number, rows have different lengths, or the file is not such a text.
    """
    try:
        # Excel starts UTF-8 with a byte order mark.
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        comments = list(takewhile(lambda line: line.lstrip().startswith("#"), lines))
        lines = lines[len(comments) :]
        separator = _separator(lines)
        rows = _cells(lines, separator)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: a table must be text in UTF-8, got another file ({error})") from None
    if not rows:
        raise ValueError(f"{path}: a table must hold at least one row, got none")
    numbers = [[_number(cell) for cell in row] for row in rows]
    top, left = _frame(rows, numbers)
    width = len(rows[-1])
    for k, row in enumerate(rows):
        # The header of R's write.table has no cell above the labels.
        if len(row) != width and not (k < top and left and len(row) == width - 1):
            raise ValueError(
                f"{path}: rows must have equal lengths, got {len(row)} cells in row {k + 1} and {width} in the last"
            )
    for k in range(top, len(rows)):
        for j in range(left, width):
            if numbers[k][j] is None:
                hint = "; decimals have a point" if re.fullmatch(r"[-+]?\d+,\d+", rows[k][j]) else ""
                raise ValueError(
                    f"{path}: cells must be numbers, or empty where missing, got {rows[k][j]!r} in row {k + 1}, "
                    f"column {j + 1}{hint}"
                )
    values = np.array([row[left:] for row in numbers[top:]], dtype=np.float64)
    return Table(values, TableLabels(comments, rows[:top], [row[:left] for row in rows[top:]], separator))


def write_table(path: Path, values: np.ndarray, labels: TableLabels) -> None:
    """Write numbers as a table with the labels of another.

    Args:
        path: the file to write.
        values: ``(n, m)``, of the shape of that table.
        labels: what stands around the numbers.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    text.writelines(f"{line}\n" for line in labels.comments)
    writer = csv.writer(text, delimiter=labels.separator, lineterminator="\n")
    writer.writerows(labels.header)
    for label, row in zip(labels.beside, values.tolist(), strict=True):
        writer.writerow([*label, *(f"{number:.9g}" for number in row)])
    atomic_text(path, text.getvalue())


def _frame(rows: list[list[str]], numbers: list[list[float | None]]) -> tuple[int, int]:
    """How many rows at the top (a header) and columns at the left (labels) are not data: 0 or 1."""
    if len(rows) == 1 or len(rows[-1]) == 1:
        return int(len(rows) > 1 and _is_text(numbers[0])), 0
    header, below = numbers[0], [row[0] for row in numbers[1:]]
    if rows[0][0] == "":
        # What stands around an empty corner belongs together. pandas counts 0, 1, 2, … where it has no names.
        counted = header[1:] == list(range(len(header) - 1)) and below == list(range(len(below)))
        framed = int(counted or _is_text(header[1:]) or _is_text(below))
        return framed, framed
    top = int(_is_text(header))
    short = top and len(header) == len(rows[-1]) - 1
    return top, int(short or _is_text(below))


def _separator(lines: list[str]) -> str:
    """What parts cells, told by the last line: it is surely data, and text in quotes may hold anything."""
    last = re.sub(r'"[^"]*"', "", lines[-1]) if lines else ""
    return next((mark for mark in "\t;," if mark in last), " ")


def _cells(lines: list[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return list(csv.reader([" ".join(line.split()) for line in lines], delimiter=" "))
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]


def _number(cell: str) -> float | None:
    """The value of a cell, NaN where it is missing, ``None`` where it is no number."""
    if cell.lower() in _MISSING:
        return math.nan
    try:
        # Python reads 1_000 as a number; whoever wrote a table did not mean that.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_text(numbers: list[float | None]) -> bool:
    """Whether a row or column holds text, and not a single number."""
    return None in numbers and all(number is None or math.isnan(number) for number in numbers)
