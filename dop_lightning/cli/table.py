"""``dop table RUN…``: print one table of many runs, as text, CSV, Markdown or LaTeX."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.cli.options import OptionParser


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop table``."""
    result = OptionParser(
        prog="dop table",
        description="Print one table of runs, and rebuild the results.csv of each run. Problems that differ only in "
        "their seeds share a row, with mean ± standard deviation of their scores. Sweeps have one column per axis. The "
        "best method on the same problems is marked. Missing results are listed on stderr.",
    )
    result.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or one that holds runs at any depth"
    )
    rows = result.add_mutually_exclusive_group()
    rows.add_argument("--each", action="store_true", help="one row per problem, even with several seeds")
    rows.add_argument("--mean", action="store_true", help="means over seeds, even with one seed")
    result.add_argument(
        "--csv",
        metavar="FILE",
        help="also write the rows, with all columns, to a CSV file; - prints CSV instead of the table",
    )
    forms = result.add_mutually_exclusive_group()
    forms.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    forms.add_argument("--latex", action="store_true", help="print the table as LaTeX, with the rules of booktabs")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Print the table.

    Raises:
        ValueError: a folder contains no run, or options conflict.
        OSError: a file cannot be read or written.
    """
    options = parser().parse_args(arguments)
    form = "markdown" if options.markdown else "latex" if options.latex else ""
    if options.csv == "-" and form:
        raise ValueError(f"--csv - and --{form} both print to the terminal; pass one of them, or a file to --csv")
    if options.csv is not None and Path(options.csv).is_dir():
        raise ValueError(f"--csv must be a file or -, got {options.csv!r}, which is a folder")
    from dop_lightning.foundation.atomic import atomic_text  # torch is imported from here on
    from dop_lightning.runs.results import render_csv, render_markdown, render_table
    from dop_lightning.runs.tables import comparison, seeds, summary
    from dop_lightning.runs.tables.latex import render_latex

    runs = comparison.read_runs(options.runs)
    for run in runs:
        if run.missing:
            print(f"{run.name}: {run.missing}", file=sys.stderr)
    groups = seeds.group_over_seeds(runs)
    diverged = sum(result["status"] == "diverged" for group in groups for result in group.results)
    means = not options.each and (options.mean or any(len(group.problems) > 1 for group in groups))
    rows, first = comparison.rows_of(runs)
    if means and diverged:
        print(f"{diverged} of {len(rows)} problems diverged; means include their last scores", file=sys.stderr)
    if options.csv is not None:
        text = summary.csv_over_seeds(groups) if means else render_csv(rows, first)
        if options.csv == "-":
            print(text, end="")
            return 0
        atomic_text(options.csv, text)
    if not rows:
        return 0
    if means:
        table, columns = summary.table_over_seeds(groups, markdown=bool(form))
    else:
        table, columns = summary.mark_best(runs, rows, comparison.short_columns(first, rows), markdown=bool(form))
    if form:
        print(render_latex(table, columns) if options.latex else render_markdown(table, columns))
        return 0
    text = render_table(table, columns)
    print(text)
    signs = {" ± ": "± standard deviation over seeds", "*": "* best method on the same problems"}
    if meaning := [meaning for sign, meaning in signs.items() if sign in text]:
        print(f"\n{', '.join(meaning)}")
    return 0
