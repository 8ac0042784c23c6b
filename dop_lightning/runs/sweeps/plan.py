"""Plan and results of a sweep, as text and for ``sweep.json``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dop_lightning.runs.sweeps.axes import Axis, short_names
from dop_lightning.runs.sweeps.ended import Ended
from dop_lightning.runs.sweeps.points import Point


def describe(points: Sequence[Point], states: Mapping[str, str]) -> str:
    """Format a table of the points with their axes, statuses and folders, and the commands that remain to be run.

    Args:
        points: all points of the sweep.
        states: state by name of the point; no command is printed for ``finished`` points.
    """
    titles = short_names(list(points[0].axes))
    rows = [["point", *titles.values(), "status", "folder"]]
    rows += [[point.name, *point.axes.values(), states[point.name], str(point.folder)] for point in points]
    commands = [point.command for point in points if states[point.name] != "finished"]
    return "\n".join([align_rows(rows), *(["", *commands] if commands else [])])


def align_rows(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of cells as columns of text.

    >>> print(align_rows([["a", "b"], ["long", "c"]]))
    a     b
    long  c
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def count_states(states: Mapping[str, str]) -> str:
    """Count the points in each state.

    >>> count_states({"a": "finished", "b": "to do", "c": "to do"})
    '3 points: 1 finished, 2 to do'
    """
    count = Counter(states.values())
    number = f"{len(states)} point{'s' if len(states) != 1 else ''}"
    return f"{number}: {', '.join(f'{count[state]} {state}' for state in sorted(count))}"


def failures(ended: Sequence[Ended]) -> str:
    """Format the failed points with their reasons and logs."""
    lines = [f"{end.point.name}: {end.failure}\n    {end.log}" for end in ended]
    return "\n".join([f"{len(lines)} point{'s' if len(lines) != 1 else ''} failed:", *lines])


def summary(axes: Sequence[Axis], points: Sequence[Point], jobs: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of ``sweep.json``: the axes, and the points in order, with their jobs, if any."""
    return {
        "axes": {axis.key: list(axis.values) for axis in axes},
        "points": [
            {
                "name": point.name,
                "axes": point.axes,
                "command": point.command,
                **({"job": jobs[point.name]} if point.name in jobs else {}),
            }
            for point in points
        ],
    }
