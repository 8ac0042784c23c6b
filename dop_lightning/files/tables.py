"""Tables of numbers as text, as spreadsheets, pandas, R and NumPy write them."""

import csv
import math
import re
from itertools import dropwhile
from pathlib import Path

import numpy as np

_MISSING = ("", "nan", "na")


def read_table(path: Path) -> np.ndarray:
    """Read a text table of numbers.

    Cells are parted by a tab, a semicolon, a comma or blanks: the first of these, in this order, that the last row
    has. Empty cells, ``nan`` and ``NA`` are missing. Lines at the top that start with ``#`` are comments. A first row
    without any number is a header, a first column without any number holds labels. Around an empty corner, and below a
    header that is one cell shorter than the rows, labels may be numbers too.

    Args:
        path: a text file in UTF-8.

    Returns:
        ``(n, m)``, float64, NaN where missing.

    Raises:
        ValueError: there is no row, a cell is no number, rows have different lengths, or the file is not such a text.
    """
    try:
        # Excel starts UTF-8 with a byte order mark.
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        rows = _cells(list(dropwhile(lambda line: line.lstrip().startswith("#"), lines)))
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
    return np.array([row[left:] for row in numbers[top:]], dtype=np.float64)


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


def _cells(lines: list[str]) -> list[list[str]]:
    """Part the lines; the last one is surely data, and text in quotes may hold anything."""
    last = re.sub(r'"[^"]*"', "", lines[-1]) if lines else ""
    separator = next((mark for mark in "\t;," if mark in last), None)
    if separator is None:
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
