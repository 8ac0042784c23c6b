"""``dop doctor``: check the installation, with one line per finding."""

import argparse
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby

from dop_lightning.cli.doctor import Finding, check_extras, check_machine, check_packages, check_trial
from dop_lightning.cli.options import OptionParser

EXIT_BROKEN = 1

TITLES = {
    "packages": "packages",
    "extras": "extras (optional)",
    "machine": "machine",
    "trial": "trial",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop doctor``."""
    result = OptionParser(
        prog="dop doctor",
        description="Check the installation and the machine: versions, extras, processor, GPUs, compiler, folders, and "
        "a short trial of the method. Missing extras are not errors; problems come with a fix. The exit status is 1 if "
        "an essential part is broken.",
    )
    result.add_argument("--json", action="store_true", help="print JSON, for a bug report")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Run the checks, and print each finding.

    Returns:
        The exit status: 1 if an essential part is broken.
    """
    options = parser().parse_args(arguments)
    checks = chain(check_packages(), check_extras(), check_machine(), check_trial())
    with _quiet():
        found = list(checks if options.json else _print_sections(checks))
    if options.json:
        print(json.dumps([finding.__dict__ for finding in found], indent=1, ensure_ascii=False))
    else:
        print(f"\n{verdict(found)}")
    return EXIT_BROKEN if any(finding.is_fatal for finding in found) else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings of imported packages and messages of this package; the findings report them."""
    log = logging.getLogger("dop_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _print_sections(findings: Iterable[Finding]) -> Iterable[Finding]:
    for section, group in groupby(findings, key=lambda finding: finding.section):
        print(f"{TITLES.get(section, section)}:", flush=True)
        for finding in group:
            print(f"  {finding.state:<8} {finding.name:<20} {finding.text}", flush=True)
            yield finding


def verdict(findings: Sequence[Finding]) -> str:
    """Return the last line."""
    broken = [finding.name for finding in findings if finding.is_fatal]
    if broken:
        return f"Broken: {', '.join(broken)}. Fix this first; other checks may be wrong until then."
    problems = [finding.name for finding in findings if finding.state == "problem"]
    if problems:
        return f"All essential parts work; see the problems of {', '.join(problems)}."
    return "No problems found."
