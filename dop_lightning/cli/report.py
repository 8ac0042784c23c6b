"""``dop report RUN``: write a self-contained HTML page of a run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.cli.options import OptionParser

REPORT = "report.html"
"""Default name of the page, in the folder of the run."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop report``."""
    result = OptionParser(
        prog="dop report",
        description="Write one HTML page of a run, with its pictures, curves, scores and settings, and the command "
        "that repeats it. The page is self-contained. The run may be unfinished.",
    )
    result.add_argument("run", type=Path, metavar="RUN", help="folder of a run of dop recover or dop fit")
    result.add_argument("--out", type=Path, metavar="FILE", help=f"file of the page; default: RUN/{REPORT}")
    result.add_argument(
        "--most",
        type=int,
        default=12,
        metavar="N",
        help="problems with pictures and curves, an evenly spaced sample; the table has all; default: %(default)s",
    )
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Write the page and print its path.

    Raises:
        ValueError: the folder contains no run, a file in it is damaged, or an option is out of range.
        OSError: a file cannot be read or written.
    """
    options = parser().parse_args(arguments)
    from dop_lightning.foundation.atomic import atomic_text  # torch is imported from here on
    from dop_lightning.foundation.checks import at_least
    from dop_lightning.runs.report import render
    from dop_lightning.runs.report.reading import read_run

    most = at_least("most", options.most, 0)
    out = options.run / REPORT if options.out is None else options.out
    if out.is_dir():
        raise ValueError(f"--out must be a file, got the folder {out}")
    atomic_text(out, render(read_run(options.run, most), out))
    print(f"Report: {out}")
    return 0
