"""``dop sweep --config BASE --axis KEY=V1,V2 --out DIR``: run ``dop fit`` for each point of a grid of settings."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dop_lightning.cli.options import OptionParser
from dop_lightning.cli.ray_options import connect
from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.foundation.launched import COMPLETION_INDEX, completion_index
from dop_lightning.foundation.nearest import nearest
from dop_lightning.foundation.user_paths import out_folder
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.ray_tasks import require_ray
from dop_lightning.runs.sweeps import by_ray, debug, local, plan, slurm
from dop_lightning.runs.sweeps.axes import Axis, check_key, parse_axis
from dop_lightning.runs.sweeps.ended import Ended
from dop_lightning.runs.sweeps.points import Point, make_points
from dop_lightning.runs.sweeps.record import LOG, SWEEP, state

SLURM_OPTIONS = ("partition", "hours", "memory", "slurm", "wait")
"""Options for SLURM only."""

CLUSTER_OPTIONS = ("gpus", "cpus")
"""Options for SLURM and Ray."""

HOURS = 12.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop sweep``."""
    result = OptionParser(
        prog="dop sweep",
        usage="dop sweep --config BASE.yaml --axis KEY=V1,V2 [--axis …] --out DIR [options] [--SETTING VALUE …]",
        description="Run dop fit for each combination of the values of the axes, each in a separate folder in DIR. "
        "Other settings, such as --trainer.max_steps 500, are passed on to every dop fit. Repeat the command to skip "
        "finished points and resume the others; dop table DIR prints one table of all.",
        epilog="dop sweep --config configs/image.yaml --axis config=none,configs/dip.yaml "
        "--axis model.signal.init_args.width=32,64 --out runs/widths --cluster local --jobs 2",
        allow_abbrev=False,  # --data is a setting, not an abbreviation of an option
    )
    result.add_argument(
        "--config", action="append", required=True, metavar="FILE", help="base config; repeat to merge several in order"
    )
    result.add_argument(
        "--axis",
        action="append",
        required=True,
        metavar="KEY=V1,V2",
        help="a setting, such as model.alpha, and its values, separated by commas outside brackets, braces and quotes. "
        "config=A.yaml,B.yaml adds config files, A.yaml+B.yaml adds two, and none adds no file",
    )
    result.add_argument("--out", type=out_folder, required=True, metavar="DIR", help="the folder of the sweep")
    result.add_argument(
        "--cluster",
        choices=["local", "slurm", "ray", "debug"],
        default="local",
        help="workers on this machine, an array of SLURM jobs, tasks of Ray, or this process; default: %(default)s",
    )
    result.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="number of points at a time; default: 1 on this machine, unlimited on SLURM and Ray",
    )
    result.add_argument(
        "--parts",
        type=int,
        metavar="N",
        help="divide the points among N processes, and run the part JOB_COMPLETION_INDEX, from 0 to N - 1, which "
        "Kubernetes sets in the pods of an indexed Job",
    )
    result.add_argument("--dry-run", action="store_true", help="print the plan, without starting or writing anything")
    result.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="with --cluster ray: a running cluster; default: RAY_ADDRESS, or a local cluster",
    )
    both = result.add_argument_group("with --cluster slurm and ray, for each point")
    both.add_argument("--gpus", type=int, metavar="N", help="GPUs; default with Ray: trainer.devices")
    both.add_argument("--cpus", type=int, metavar="N", help="processor cores; default with Ray: 1")
    jobs = result.add_argument_group("with --cluster slurm, for each point")
    jobs.add_argument("--partition", metavar="NAME", help="SLURM partition")
    jobs.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help=f"time limit; longer runs are requeued and resume, up to three times; default: {HOURS:g}",
    )
    jobs.add_argument("--memory", type=float, metavar="GB", help="memory, in gigabytes")
    jobs.add_argument(
        "--slurm", action="append", metavar="KEY=VALUE", help="any other option of sbatch, such as account=NAME"
    )
    jobs.add_argument("--wait", action="store_true", help="wait for all jobs instead of exiting after submission")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Run the unfinished points of a grid.

    Returns:
        The exit status: 0; 1 if a point failed; 130 or 143 after Ctrl-C or SIGTERM.

    Raises:
        ValueError: an option or an axis is invalid.
        OSError: a config file cannot be read, or the folder cannot be written.
        ImportError: submitit or Ray is not installed.
    """
    options, rest = parser().parse_known_args(arguments)
    _check_options(options)
    sbatch = dict(map(slurm.parse_setting, options.slurm or []))
    axes = [parse_axis(text) for text in options.axis]
    settings = passed_on(rest)
    _refuse_misspelled_options(settings)
    points = make_points(axes, options.config, settings, options.out)
    own = points if options.parts is None else points[_part_index(options.parts) :: options.parts]
    states: dict[str, str] = {point.name: state(point) for point in own}
    queued = slurm.jobs_in_queue(options.out) if options.cluster == "slurm" else {}
    states.update({name: "in the queue" for name in queued if states.get(name, "finished") != "finished"})
    if options.dry_run:
        print(plan.describe(own, states))
        return 0
    if options.cluster == "slurm":
        require_submitit()
    if options.cluster == "ray":
        require_ray("dop sweep")
    missing = [point for point in own if states[point.name] not in ("finished", "in the queue")]
    if missing:
        _check_settings(missing)
    print(plan.count_states(states), flush=True)
    if options.cluster == "slurm":
        return _submit(options, axes, points, missing, queued, sbatch)
    _save_plan(options.out, axes, points)
    if options.cluster == "debug":
        ended, status = debug.run(missing, _run_fit, _print_line)
    elif options.cluster == "ray":
        ended, status = _run_by_ray(options, missing)
    else:
        ended, status = local.run(missing, options.out, options.jobs or 1, _print_line)
    return _report(options.out, points, ended, status)


def _run_by_ray(options: argparse.Namespace, missing: Sequence[Point]) -> tuple[list[Ended], int]:
    if not missing:
        return [], 0
    lightning = importlib.import_module("dop_lightning.cli.experiments.lightning_cli")
    devices = max(lightning.folder_and_devices(point.arguments)[1] for point in missing)
    with connect(options, options.out, devices) as tasks:
        return by_ray.run(missing, tasks, _print_line)


def _part_index(parts: int) -> int:
    """Return the index of the part of this process.

    Raises:
        ValueError: the index is unknown or too large.
    """
    index = completion_index()
    if index is None or index >= parts:
        got = "none" if index is None else index
        raise ValueError(
            f"with --parts {parts}, the environment variable {COMPLETION_INDEX} must be 0 to {parts - 1}, got {got}"
        )
    return index


def passed_on(rest: Sequence[str]) -> list[tuple[str, str]]:
    """Parse the settings that are passed on to every ``dop fit``: all arguments that are not options of the sweep.

    Raises:
        ValueError: an argument is not a setting, a setting has no value, or the sweep sets it.

    >>> passed_on(["--trainer.max_steps", "500", "--model.tau=auto"])
    [('trainer.max_steps', '500'), ('model.tau', 'auto')]
    """
    settings = []
    words = iter(rest)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise ValueError(f"a setting must be --KEY VALUE, got {word!r}")
        if not equals:
            value = next(words, "--")
            if value.startswith("--"):
                raise ValueError(f"--{key} must have a value, which is passed on to dop fit, got none")
        check_key(key)
        settings.append((key, value))
    return settings


def _refuse_misspelled_options(settings: Sequence[tuple[str, str]]) -> None:
    """Raise an error for settings that are spelled like an option of the sweep."""
    options = [option[2:] for option in parser()._option_string_actions if option.startswith("--")]
    for key, _ in settings:
        if "." not in key and (meant := nearest(key, options)):
            raise ValueError(f"--{key} is not an option of dop sweep; did you mean --{meant}?")


def _check_settings(points: Sequence[Point]) -> None:
    """Check the settings of enough points to cover all values of all axes, before the first point starts.

    Raises:
        ValueError: a setting does not exist, or its value is not accepted.
    """
    seen: set[object] = set()
    checked = []
    for point in points:
        given = {point.configs, *point.options}
        if not given <= seen:
            checked.append(point.arguments)
        seen |= given
    lightning = importlib.import_module("dop_lightning.cli.experiments.lightning_cli")  # seconds
    if {"", str(Path.cwd())}.isdisjoint(sys.path):
        sys.path.insert(0, str(Path.cwd()))  # as ``python -m`` does in the processes of the points
    lightning.check(checked)


def require_submitit() -> None:
    """Check early that jobs can be submitted.

    Raises:
        ImportError: submitit is not installed.
    """
    if importlib.util.find_spec("submitit") is None:
        raise ImportError(
            'dop sweep --cluster slurm requires submitit: pip install "dop_lightning[cluster]", or use --cluster local'
        )


def _check_options(options: argparse.Namespace) -> None:
    """Check numbers, the options of clusters, and the folder."""
    for name in ("jobs", "cpus", "parts"):
        if getattr(options, name) is not None:
            at_least(name, getattr(options, name), 1)
    if options.gpus is not None:
        at_least("gpus", options.gpus, 0)
    for name in ("hours", "memory"):
        if getattr(options, name) is not None:
            positive(name, getattr(options, name))
    idle = [name for name in SLURM_OPTIONS if getattr(options, name) and options.cluster != "slurm"]
    if idle:
        raise ValueError(f"--{idle[0]} requires --cluster slurm, got --cluster {options.cluster}")
    for name, clusters in (*((name, ("slurm", "ray")) for name in CLUSTER_OPTIONS), ("address", ("ray",))):
        if getattr(options, name) is not None and options.cluster not in clusters:
            raise ValueError(f"--{name} requires --cluster {' or '.join(clusters)}, got --cluster {options.cluster}")
    if options.jobs is not None and options.cluster == "debug":
        raise ValueError("--jobs requires --cluster local, slurm or ray, got --cluster debug")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out}: --out must be a folder, got a file")
    if RunFolder(options.out).has_run:
        raise ValueError(f"{options.out}: contains a run; choose another folder for the sweep")


def _submit(
    options: argparse.Namespace,
    axes: Sequence[Axis],
    points: Sequence[Point],
    missing: Sequence[Point],
    queued: dict[str, str],
    sbatch: dict[str, Any],
) -> int:
    """Submit the missing points, and wait for them if requested."""
    if not missing:
        _print_line("Nothing to submit")
        return 0
    settings = {
        "name": f"dop-{options.out.name}",
        "timeout_min": round(60 * (options.hours or HOURS)),
        "mem_gb": options.memory,
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus,
        "slurm_partition": options.partition,
        "slurm_array_parallelism": options.jobs,
    }
    jobs = slurm.submit(missing, options.out, settings, sbatch)
    ids = {point.name: job.job_id for point, job in zip(missing, jobs, strict=True)}
    _save_plan(options.out, axes, points, {**queued, **ids})
    print(plan.align_rows([["job", "point"], *([job, name] for name, job in ids.items())]))
    if options.wait:
        return _report(options.out, points, slurm.wait(jobs, missing, _print_line), 0)
    print(
        f"Submitted {len(jobs)}. squeue --me lists them; their logs are {options.out}/POINT/{LOG}. Repeat the "
        f"command to submit failed points again; dop table {options.out} prints the results so far."
    )
    return 0


def _report(out: Path, points: Sequence[Point], ended: Sequence[Ended], status: int) -> int:
    """Print failures in the order of the points, and return the exit status of the sweep."""
    failed = sorted(
        (end for end in ended if end.failure and not (status and end.stopped)), key=lambda end: points.index(end.point)
    )
    if failed:
        print(plan.failures(failed), file=sys.stderr)
    if status:
        _print_line("Stopped: the same command resumes")
        return status
    print(f"dop table {out} prints one table of all")
    return 1 if failed else 0


def _save_plan(out: Path, axes: Sequence[Axis], points: Sequence[Point], jobs: dict[str, str] | None = None) -> None:
    atomic_json(out / SWEEP, plan.summary(axes, points, jobs or {}))


def _run_fit(arguments: Sequence[str]) -> int:
    from dop_lightning.cli.experiments import lightning_cli as lightning

    return lightning.run("fit", arguments)


def _print_line(line: str) -> None:
    print(line, file=sys.stderr)
