"""Read and write text tables of numbers in the formats of spreadsheets, pandas, R and NumPy."""

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from dop_lightning.foundation.atomic import atomic_text

_MISSING = (
    *("", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan"),
    *("<na>", "n/a", "na", "nan", "none", "null"),
)
"""Markers of missing values in pandas, in lower case; compared case-insensitively."""

_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{1,2}:\d{2})([T: ].*)?")

_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")


SAMPLE = 1000
"""Number of rows at the top of a table from which :func:`text_strips` infers its layout."""


class TableLabels(NamedTuple):
    """Everything in a table except its numbers.

    Attributes:
        comments: comment lines above the table.
        header: row above the numbers, including its corner; empty if there is no header.
        beside: label of each row; empty lists if there are no labels.
        separator: separator of cells.
        decimal: decimal mark, ``.`` or ``,``.
    """

    comments: list[str]
    header: list[list[str]]
    beside: list[list[str]]
    separator: str
    decimal: str = "."


class Table(NamedTuple):
    """Content of a table.

    Attributes:
        values: ``(n, m)``, float64, NaN if missing.
        labels: everything except the numbers.
    """

    values: np.ndarray
    labels: TableLabels


def read_table(path: Path, index: Sequence[str] = ()) -> Table:
    """Read a text table of numbers, compressed by gzip if its name ends in ``.gz``.

    Cells are separated by tabs, semicolons, commas or blanks: the first of these, in this order, in the last row. With
    semicolons or tabs, a decimal comma is supported. Empty cells, ``nan``, ``n/a`` and the other markers of pandas are
    missing values. Lines at the top that start with ``#`` are comments. The first row is a header if it has no
    numbers, or has text in its first cell and in another one. Without ``index``, a first column of text holds labels.
    If the corner is empty, or the header is one cell shorter than the rows, labels may also be numbers.

    Args:
        path: UTF-8 text file.
        index: names of the columns that hold labels; requires a header.

    Raises:
        ValueError: there are no rows, a cell is not a number, rows have different lengths, ``index`` names a column
            that does not exist, or the file is not such a text.
    """
    with _convert_errors(path):
        with _open(path) as file:
            lines = [line for line in file.read().splitlines() if line.strip()]
        comments = list(takewhile(_is_comment, lines))
        lines = lines[len(comments) :]
        separator = _separator(lines)
        rows = _split_cells(lines, separator)
    if not rows:
        raise ValueError(f"{path}: a table must hold at least one row, got none")
    decimal = _decimal(path, rows, separator)
    numbers = [[_parse_number(cell, decimal) for cell in row] for row in rows]
    if index:
        rows, numbers = _move_index_left(path, rows, numbers, index)
        top, left = 1, len(index)
    else:
        top, left = _header_size(rows, numbers)
    width = len(rows[-1])
    for k, row in enumerate(rows):
        # In R's write.table, the header has no cell above the labels.
        if len(row) != width and not (k < top and left and len(row) == width - 1):
            raise ValueError(
                f"{path}: rows must have equal lengths, got {len(row)} cells in row {k + 1} and {width} in the last"
            )
    for k in range(top, len(rows)):
        for j in range(left, width):
            if numbers[k][j] is None:
                raise ValueError(f"{path}: {_describe_mistake(rows, k, j, top)}")
    values = np.array([row[left:] for row in numbers[top:]], dtype=np.float64)
    return Table(values, TableLabels(comments, rows[:top], [row[:left] for row in rows[top:]], separator, decimal))


def write_table(path: Path, values: np.ndarray, labels: TableLabels) -> None:
    """Write numbers as a table with the labels of another table.

    Args:
        path: file to write.
        values: ``(n, m)``, with the shape of the other table.
        labels: labels of the other table.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    text.writelines(f"{line}\n" for line in labels.comments)
    writer = csv.writer(text, delimiter=labels.separator, lineterminator="\n")
    writer.writerows(labels.header)
    for label, row in zip(labels.beside, values.tolist(), strict=True):
        writer.writerow([*label, *(f"{number:.9g}".replace(".", labels.decimal) for number in row)])
    atomic_text(path, text.getvalue())


def text_strips(path: Path, index: Sequence[str], entries: int) -> tuple[tuple[int, int], Iterator[np.ndarray]]:
    """Read the numbers of a text table in strips of rows, with the rules of :func:`read_table`.

    The separator is inferred from the last row; the header, labels and decimal mark from the first :data:`SAMPLE` rows.
    The file is read twice, first to count its rows.

    Args:
        path: UTF-8 text file.
        index: names of the columns that hold labels; requires a header.
        entries: maximum number of entries per strip; a strip has at least one row.

    Returns:
        Shape ``(n, m)`` of the numbers, and an iterator over strips ``(h, m)``, float64, NaN if missing.

    Raises:
        ValueError: as in :func:`read_table`; some errors are raised while strips are read.
    """
    sample, count, last = [], 0, ""
    with _convert_errors(path):
        for line in _rows_of_text(path):
            count, last = count + 1, line
            if count <= SAMPLE:
                sample.append(line)
        separator = _separator([last])
        rows = _split_cells(sample, separator)
    if not rows:
        raise ValueError(f"{path}: a table must hold at least one row, got none")
    decimal, width = _decimal(path, rows, separator), len(rows[-1])
    numbers = [[_parse_number(cell, decimal) for cell in row] for row in rows]
    if index:
        _move_index_left(path, rows, numbers, index)
        top, columns = 1, [j for j, name in enumerate(rows[0]) if name not in index]
    else:
        top, left = _header_size(rows, numbers)
        columns = list(range(left, width))
    height = max(1, entries // max(1, len(columns)))
    shape = count - top, len(columns)
    return shape, _number_strips(path, separator, decimal, top, width, columns, height)


def _number_strips(
    path: Path, separator: str, decimal: str, top: int, width: int, columns: Sequence[int], height: int
) -> Iterator[np.ndarray]:
    lines, done = islice(_rows_of_text(path), top, None), top
    while True:
        with _convert_errors(path):
            rows = _split_cells(list(islice(lines, height)), separator)
        if not rows:
            return
        strip = np.empty((len(rows), len(columns)))
        for k, row in enumerate(rows):
            if len(row) != width:
                raise ValueError(
                    f"{path}: rows must have equal lengths, got {len(row)} cells in row {done + k + 1} and {width} "
                    "above"
                )
            for place, j in enumerate(columns):
                number = _parse_number(row[j], decimal)
                if number is None:
                    raise ValueError(
                        f"{path}: cells must be numbers, or empty if missing, got {row[j]!r} in row "
                        f"{done + k + 1}, column {j + 1}"
                    )
                strip[k, place] = number
        done += len(rows)
        yield strip


def _rows_of_text(path: Path) -> Iterator[str]:
    """Yield the lines of a table that are not blank, without the comments above it."""
    with _open(path) as file:
        is_above = True
        for line in file:
            is_above = is_above and (not line.strip() or _is_comment(line))
            if not is_above and line.strip():
                yield line.rstrip("\n")


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


@contextmanager
def _convert_errors(path: Path) -> Iterator[None]:
    """Convert errors of reading a table into a ValueError with its name."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: a table must be UTF-8 text, got another or damaged file ({error})") from None


def _header_size(rows: list[list[str]], numbers: list[list[float | None]]) -> tuple[int, int]:
    """Return the number of header rows and of label columns, each 0 or 1."""
    if len(rows) == 1 or len(rows[-1]) == 1:
        return int(len(rows) > 1 and _is_text(numbers[0])), 0
    header, below = numbers[0], [row[0] for row in numbers[1:]]
    if rows[0][0] == "":
        # With an empty corner, there is both a header and labels, or neither. pandas numbers unnamed ones 0, 1, 2, …
        counted = header[1:] == list(range(len(header) - 1)) and below == list(range(len(below)))
        framed = int(counted or _is_text(header[1:]) or _is_text(below))
        return framed, framed
    top = int(_is_text(header) or (header[0] is None and None in header[1:]))
    short = top and len(header) == len(rows[-1]) - 1
    return top, int(short or _is_text(below))


def _separator(lines: list[str]) -> str:
    """Return the separator of cells, from the last line: it is certainly data. Quoted text is ignored."""
    last = re.sub(r'"[^"]*"', "", lines[-1]) if lines else ""
    return next((mark for mark in "\t;," if mark in last), " ")


def _split_cells(lines: list[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return list(csv.reader([" ".join(line.split()) for line in lines], delimiter=" "))
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]


def _open(path: Path) -> TextIO:
    encoding = "utf-8-sig"  # Excel writes a byte order mark
    if path.suffix.lower() != ".gz":
        return path.open(encoding=encoding)
    return gzip.open(path, "rt", encoding=encoding)


def _decimal(path: Path, rows: list[list[str]], separator: str) -> str:
    """Return the decimal mark. "1,234" may be a thousands separator; it counts as a decimal only with semicolons."""
    cells = [cell for row in rows for cell in row]
    commas = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
    if separator not in "\t;" or not commas:
        return "."
    points = [cell for cell in cells if "." in cell and _parse_number(cell, ".") is not None]
    grouped = separator == "\t" and all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", cell) for cell in commas)
    if points or grouped:
        both = f" and {points[0]!r}" if points else ""
        raise ValueError(
            f"{path}: the decimal mark is unclear, got {commas[0]!r}{both}; write all numbers with a decimal point and "
            "without thousands separators"
        )
    return ","


def _move_index_left(
    path: Path, rows: list[list[str]], numbers: list[list[float | None]], index: Sequence[str]
) -> tuple[list[list[str]], list[list[float | None]]]:
    """Move the columns with these names to the left."""
    names, width = rows[0], len(rows[-1])
    for name in index:
        if names.count(name) != 1 or len(names) != width:
            raise ValueError(
                f"{path}: index must name columns of the header {', '.join(names)}, each once, got {name!r}"
            )
    chosen = [names.index(name) for name in index]
    if len(set(chosen)) == width:
        raise ValueError(f"{path}: index must leave at least one column of numbers, got all {width}")
    order = [*chosen, *(j for j in range(width) if j not in chosen)]
    if short := [k for k, row in enumerate(rows) if len(row) != width]:
        raise ValueError(
            f"{path}: rows must have equal lengths, got {len(rows[short[0]])} cells in row {short[0] + 1} and {width} "
            "in the last"
        )
    return [[row[j] for j in order] for row in rows], [[row[j] for j in order] for row in numbers]


def _describe_mistake(rows: list[list[str]], k: int, j: int, top: int) -> str:
    """Return what is wrong with a cell."""
    cell = rows[k][j]
    name = f" {rows[0][j]!r}" if top and len(rows[0]) == len(rows[k]) else ""
    if _DATE.fullmatch(cell):
        option = f"; pass --index {rows[0][j]} to use it as row labels, or remove it" if name else "; remove it"
        return f"columns must hold numbers, got the date {cell!r} in column{name or f' {j + 1}'}, row {k + 1}{option}"
    hint = "; use a decimal point" if re.fullmatch(r"[-+]?\d+,\d+", cell) else ""
    return f"cells must be numbers, or empty if missing, got {cell!r} in row {k + 1}, column {j + 1}{name}{hint}"


def _parse_number(cell: str, decimal: str) -> float | None:
    """Return the value of a cell: NaN if missing, ``None`` if it is not a number."""
    if cell.lower() in _MISSING:
        return math.nan
    if decimal == "," and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    try:
        # Python also reads 1_000 as a number, which is unlikely to be intended in a table.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_text(numbers: list[float | None]) -> bool:
    """Return whether a row or column has text but no number."""
    return None in numbers and all(number is None or math.isnan(number) for number in numbers)
