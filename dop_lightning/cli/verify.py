"""``dop verify RUN…``: check the files of runs against their checksums."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.cli.options import OptionParser

EXIT_DAMAGED = 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop verify``."""
    result = OptionParser(
        prog="dop verify",
        description="Check the files of runs by their checksums: settings, checkpoints, curves, results, arrays and "
        "pictures. Each damaged file is printed with how a resumed run handles it. No file is written. The exit status "
        "is 1 if a file is damaged.",
    )
    result.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or one that holds runs at any depth"
    )
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Check the runs, and print one line per damaged file.

    Returns:
        The exit status: 1 if a file is damaged.

    Raises:
        ValueError: a folder contains no run.
        OSError: a file cannot be read.
    """
    options = parser().parse_args(arguments)
    from dop_lightning.runs.find import named_runs  # torch is imported from here on
    from dop_lightning.runs.verification import verify_run

    has_damage = False
    for folder, name in named_runs(options.runs):
        found = list(verify_run(folder))
        for path, what, then in found:
            shown = path.relative_to(folder) if path.is_relative_to(folder) else path
            print(f"{Path(name) / shown}: {what}: {then}")
        if not found:
            print(f"{name}: all files are intact")
        has_damage = has_damage or bool(found)
    return EXIT_DAMAGED if has_damage else 0
