"""``dop table RUN…``: one table out of many runs, as text, CSV or Markdown."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.commands.options import OptionParser


def parser() -> argparse.ArgumentParser:
    """The options of ``dop table``."""
    result = OptionParser(
        prog="dop table",
        description="Print one table of runs, a row a problem, and rebuild the results.csv of each run. Runs of a "
        "sweep have a column an axis. What has no result yet is told on stderr.",
    )
    result.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or one that holds runs at any depth"
    )
    result.add_argument(
        "--csv", metavar="FILE", help="write all columns to a CSV file, besides the table; - for CSV instead of a table"
    )
    result.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Print the table.

    Raises:
        ValueError: a folder holds no run, or options do not go together.
        OSError: a file cannot be read or written.
    """
    options = parser().parse_args(arguments)
    if options.csv == "-" and options.markdown:
        raise ValueError("--csv - and --markdown both print; give one of them, or a file to --csv")
    from dop_lightning.files.atomic import atomic_text  # torch is imported from here on
    from dop_lightning.reporting import many
    from dop_lightning.reporting.results import render_csv, render_markdown, render_table

    runs = many.read_runs(options.runs)
    rows, first = many.rows_of(runs)
    for run in runs:
        if run.missing:
            print(f"{run.name}: {run.missing}", file=sys.stderr)
    if options.csv == "-":
        print(render_csv(rows, first), end="")
        return 0
    if options.csv is not None:
        atomic_text(options.csv, render_csv(rows, first))
    if rows:
        print((render_markdown if options.markdown else render_table)(rows, many.short_columns(first)))
    return 0
