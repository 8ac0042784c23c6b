"""Histograms of |s|, the absolute values of a corruption. They show its sparsity in a small file."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dop_lightning.foundation.atomic import atomic_text

HISTOGRAM = "histogram.csv"
"""Name of the file in the folder of a problem."""

BINS = 60
"""Number of bins, of equal width, from 0 to the largest value."""

AT_ONCE = 2**20
"""Number of entries that are counted at once."""


class Histogram(NamedTuple):
    """Number of entries of a corruption by absolute value.

    Attributes:
        edges: edges of the bins, one more than bins; the last bin includes its upper edge.
        found: entries of ŝ in each bin.
        true: entries of s* in each bin, if it is known.
    """

    edges: list[float]
    found: list[int]
    true: list[int] | None = None


def corruption_histogram(s: np.ndarray, true: np.ndarray | None = None, mask: np.ndarray | None = None) -> Histogram:
    """Count the entries of |ŝ|, and of |s*| in the same bins.

    Args:
        s: estimated corruption ŝ, of any shape. Non-finite entries are ignored.
        true: true corruption s*, of the same shape.
        mask: observed entries, of the same shape; by default all.

    Returns:
        :data:`BINS` bins from 0 to the largest of all values, or to 1 if all values are 0.
    """
    arrays = [array for array in (s, true) if array is not None]
    largest = max(float(part.max(initial=0.0)) for array in arrays for part in _parts(array, mask))
    edges = np.linspace(0.0, largest or 1.0, BINS + 1)
    counts = [
        np.sum([np.histogram(part, edges)[0] for part in _parts(array, mask)], axis=0).tolist() for array in arrays
    ]
    return Histogram(edges.tolist(), *counts)


def _parts(array: np.ndarray, mask: np.ndarray | None) -> Iterator[np.ndarray]:
    """Yield the finite absolute values of the observed entries in parts, to avoid a copy of a large array."""
    flat, observed = array.reshape(-1), None if mask is None else mask.reshape(-1)
    for begin in range(0, flat.size, AT_ONCE):
        part = np.abs(flat[begin : begin + AT_ONCE])
        known = np.isfinite(part) if observed is None else np.isfinite(part) & observed[begin : begin + AT_ONCE]
        yield part[known]


def write_histogram(path: Path, histogram: Histogram) -> None:
    """Write a CSV file with one row per bin: ``from``, ``to``, ``entries``, and ``true_entries`` if known.

    Raises:
        OSError: the file cannot be written.
    """
    columns: dict[str, Sequence[object]] = {
        "from": [f"{edge:.7g}" for edge in histogram.edges[:-1]],
        "to": [f"{edge:.7g}" for edge in histogram.edges[1:]],
        "entries": histogram.found,
    }
    if histogram.true is not None:
        columns["true_entries"] = histogram.true
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    atomic_text(path, text.getvalue())


def read_histogram(path: Path) -> Histogram:
    """Read a file written by :func:`write_histogram`.

    Raises:
        ValueError: the file is not a histogram.
        OSError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        edges = [float(rows[0]["from"]), *(float(row["to"]) for row in rows)]
        true = [int(row["true_entries"]) for row in rows] if "true_entries" in rows[0] else None
        return Histogram(edges, [int(row["entries"]) for row in rows], true)
    except (csv.Error, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a histogram written by dop ({error})") from error
