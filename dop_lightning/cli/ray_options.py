"""Options for Ray, shared by ``dop fit`` and ``dop sweep``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dop_lightning.foundation.checks import at_least
from dop_lightning.runs.ray_tasks import RayTasks


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``dop fit``."""
    parser.add_argument("--address", metavar="HOST:PORT", help="address of a running cluster")
    parser.add_argument("--jobs", type=int, metavar="N", help="number of tasks at a time")
    parser.add_argument("--cpus", type=int, metavar="N", help="processor cores per task")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs per task")


def check_ray_options(options: argparse.Namespace) -> None:
    """Check the ranges of the options.

    Raises:
        ValueError: an option is out of range.
    """
    for name, least in (("jobs", 1), ("cpus", 1), ("gpus", 0)):
        if getattr(options, name) is not None:
            at_least(name, getattr(options, name), least)


def connect(options: argparse.Namespace, folder: Path, devices: int) -> RayTasks:
    """Connect to the cluster.

    Args:
        options: options of :func:`add_ray_options`.
        folder: folder of the results, which is created.
        devices: number of GPUs per task if the cluster has GPUs; 0 for tasks on CPUs.

    Raises:
        ValueError: the cluster does not exist, or is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return RayTasks(folder, options.address, options.cpus or 1, options.gpus, options.jobs, devices)
