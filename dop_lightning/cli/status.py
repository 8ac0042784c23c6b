"""``dop status RUN…``: print the progress of runs, even while they are active."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from dop_lightning.cli.options import OptionParser
from dop_lightning.foundation.checks import positive
from dop_lightning.foundation.terminal import is_terminal
from dop_lightning.runs.status import ENDS, STATUSES, RunStatus, read_status
from dop_lightning.runs.sweeps.plan import align_rows

EXIT_FAILED = 1
"""Exit status if a run or one of its processes has failed."""

MAX_ROWS = 20
"""Maximum number of problems that are listed for a single run, unless ``--each`` is passed."""

_FIRST = ("failed", "lost", "running", "interrupted", "diverged", "waiting")
"""Statuses of problems that are listed first if there are more than :data:`MAX_ROWS`."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop status``."""
    result = OptionParser(
        prog="dop status",
        description="Show the progress of runs and sweeps: done, active, waiting and failed problems, iterations, "
        "rate, remaining time, and the logs of failures. The command only reads files, so it also works for runs of "
        "other machines in a shared folder.",
        epilog="The exit status is 1 if a run, or a process of one, has failed, was killed, or does not respond.",
    )
    result.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or one that holds runs at any depth"
    )
    result.add_argument("--each", action="store_true", help="list every problem of every run")
    result.add_argument("--json", action="store_true", help="print JSON, one object per run")
    result.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=2.0,
        metavar="SECONDS",
        help="refresh at this interval until no run is active or waiting; default: %(const)s",
    )
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Print the status of runs.

    Returns:
        0, or 1 if a run has failed.

    Raises:
        ValueError: a folder contains no run, a file is damaged, or an option is out of range.
        OSError: a file cannot be read.
    """
    options = parser().parse_args(arguments)
    pause = None if options.watch is None else positive("watch", options.watch)
    while True:
        runs = read_status(options.runs)
        text = _json(runs, pause is not None) if options.json else describe(runs, options.each)
        clear = "\x1b[H\x1b[2J" if pause is not None and is_terminal(sys.stdout) and not options.json else ""
        print(f"{clear}{text}", flush=True)
        if pause is None or all(each.status not in ("running", "starting", "waiting") for each in runs):
            return EXIT_FAILED if any(each.has_failed for each in runs) else 0
        try:
            time.sleep(pause)
        except KeyboardInterrupt:
            return EXIT_FAILED if any(each.has_failed for each in runs) else 0


def _json(runs: Sequence[RunStatus], as_line: bool) -> str:
    return json.dumps([each.to_json() for each in runs], indent=None if as_line else 2, ensure_ascii=False)


def describe(runs: Sequence[RunStatus], each: bool = False) -> str:
    """Return the status of runs as text.

    Args:
        runs: at least one run.
        each: whether to list every problem.
    """
    parts = [_describe_run(runs[0])] if len(runs) == 1 else [align_rows(_table_rows(runs)), _summary_line(runs)]
    if each or len(runs) == 1:
        parts += [table for status in runs if (table := _problem_table(status, each, len(runs) > 1))]
    parts += [_describe_trouble(status) for status in runs if status.reason]
    return "\n\n".join(parts)


def _describe_run(status: RunStatus) -> str:
    """Return one line about a run, and one with the number of its problems per status."""
    first = [
        f"{status.name}: {status.status}",
        *filter(None, (_format_iterations(status), _format_rate(status), _format_time_left(status))),
    ]
    counts = ", ".join(f"{count} {word}" for word, count in status.counts.items())
    number, line = len(status.problems), ", ".join(first)
    return f"{line}\n{number} problem{'s' if number > 1 else ''}: {counts}" if number else line


def _table_rows(runs: Sequence[RunStatus]) -> list[list[str]]:
    rows = [["run", "status", "problems", "iterations", "it/s", "left"]]
    for status in runs:
        ended = sum(count for word, count in status.counts.items() if word in ENDS)
        problems = f"{ended} of {len(status.problems)}" if status.problems else ""
        rate = "" if status.rate is None else f"{status.rate:.3g}"
        cells = [status.name, status.status, problems, _format_iterations(status, short=True), rate]
        rows.append([*cells, _format_time_left(status, short=True)])
    return rows


def _summary_line(runs: Sequence[RunStatus]) -> str:
    count = Counter(status.status for status in runs)
    return f"{len(runs)} runs: {', '.join(f'{count[word]} {word}' for word in STATUSES if count[word])}"


def _problem_table(status: RunStatus, each: bool, named: bool) -> str:
    """Return a table with one row per problem; with many problems, only of the most important ones."""
    problems = list(status.problems)
    if not each:
        by_status = {word: place for place, word in enumerate(_FIRST)}
        order = sorted(range(len(problems)), key=lambda k: by_status.get(problems[k].status, len(_FIRST)))
        problems = [problems[k] for k in sorted(order[:MAX_ROWS])]
    if not problems:
        return ""
    rows = [["problem", "status", "iterations"]]
    rows += [[p.name, p.status, "" if p.iterations is None else str(p.iterations)] for p in problems]
    more = len(status.problems) - len(problems)
    lines = [*([f"{status.name}:"] if named else []), align_rows(rows)]
    return "\n".join([*lines, *([f"… and {more} more; --each lists all"] if more else [])])


def _describe_trouble(status: RunStatus) -> str:
    log = "" if status.log is None else f"\n    {status.log}"
    return f"{status.name}: {status.reason}{log}"


def _format_iterations(status: RunStatus, short: bool = False) -> str:
    if status.iterations is None:
        return ""
    of = "" if status.maximum is None else f"/{status.maximum}" if short else f" of {status.maximum}"
    return f"{status.iterations}{of}" if short else f"{status.iterations}{of} iterations"


def _format_rate(status: RunStatus) -> str:
    return "" if status.rate is None else f"{status.rate:.3g} it/s"


def _format_time_left(status: RunStatus, short: bool = False) -> str:
    if status.seconds_left is None:
        return ""
    left = str(timedelta(seconds=round(status.seconds_left)))
    return left if short else f"{left} left"
