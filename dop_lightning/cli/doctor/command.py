"""``dop doctor``: what there is, what is missing, and what is wrong, a line each."""

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
    "extras": "extras, which add what they say",
    "machine": "machine",
    "trial": "trial",
}


def parser() -> argparse.ArgumentParser:
    """The options of ``dop doctor``."""
    result = OptionParser(
        prog="dop doctor",
        description="Check the installation and the machine: versions, extras, processor, GPUs, compiler, folders, and "
        "a trial of the method. What is missing is no fault, what is a problem says what to do. Exit status 1 where "
        "something is broken that nothing works without.",
    )
    result.add_argument("--json", action="store_true", help="print it as JSON, for a report of a fault")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Check, and print as it goes.

    Returns:
        The exit status: 1 where something essential is broken.
    """
    options = parser().parse_args(arguments)
    checks = chain(check_packages(), check_extras(), check_machine(), check_trial())
    with _quiet():
        found = list(checks if options.json else _printed(checks))
    if options.json:
        print(json.dumps([finding.__dict__ for finding in found], indent=1, ensure_ascii=False))
    else:
        print(f"\n{verdict(found)}")
    return EXIT_BROKEN if any(finding.is_fatal for finding in found) else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what packages warn of when they are imported, and what our modules say: a line says it."""
    log = logging.getLogger("dop_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _printed(findings: Iterable[Finding]) -> Iterable[Finding]:
    for section, group in groupby(findings, key=lambda finding: finding.section):
        print(f"{TITLES.get(section, section)}:", flush=True)
        for finding in group:
            print(f"  {finding.state:<8} {finding.name:<20} {finding.text}", flush=True)
            yield finding


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    broken = [finding.name for finding in findings if finding.is_fatal]
    if broken:
        return f"Broken: {', '.join(broken)}. Nothing is sure to work before that is mended."
    problems = [finding.name for finding in findings if finding.state == "problem"]
    if problems:
        return f"Everything essential works; look at {', '.join(problems)}."
    return "All is well."
