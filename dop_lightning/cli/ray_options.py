"""Options of Ray, which ``dop fit`` and ``dop sweep`` share."""

from __future__ import annotations

import argparse
from pathlib import Path

from dop_lightning.foundation.checks import at_least
from dop_lightning.runs.ray_tasks import RayTasks


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``dop fit``."""
    parser.add_argument("--address", metavar="HOST:PORT", help="a cluster that is running")
    parser.add_argument("--jobs", type=int, metavar="N", help="tasks at a time")
    parser.add_argument("--cpus", type=int, metavar="N", help="processor cores of a task")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs of a task")


def check_ray_options(options: argparse.Namespace) -> None:
    """Check numbers.

    Raises:
        ValueError: one is out of range.
    """
    for name, least in (("jobs", 1), ("cpus", 1), ("gpus", 0)):
        if getattr(options, name) is not None:
            at_least(name, getattr(options, name), least)


def connect(options: argparse.Namespace, folder: Path, devices: int) -> RayTasks:
    """Join the cluster of the options.

    Args:
        options: those of :func:`add_ray_options`.
        folder: of the results; is made.
        devices: GPUs that a task needs if the cluster has any; 0 if it runs on CPUs.

    Raises:
        ValueError: there is no such cluster, or it is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return RayTasks(folder, options.address, options.cpus or 1, options.gpus, options.jobs, devices)
