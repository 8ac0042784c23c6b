"""Environment variables that describe how this process was started: alone, or as one of several."""

import os
from dataclasses import dataclass
from pathlib import Path

CHILD = "DOP_CHILD"
"""Process ID of the parent, set for processes that another process of the same run started on this machine."""

PLACE = "DOP_PLACE"
"""The four numbers of :class:`Place` separated by slashes, set in addition for processes that share one matrix."""

RUN_FOLDER = "DOP_RUN_FOLDER"
"""Folder of the run that such a process belongs to, if the first process has chosen it."""

START = "DOP_START"
"""Unique name of a launch, shared by its first process and the processes that it started on the same machine."""


COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""Index of the pod, starting at 0, set by Kubernetes in the pods of an indexed Job."""

BATCHES_VARIABLE = "DOP_TAKEN"
"""Comma-separated indices of the batches assigned to this process, to take over work of a dead process or as a Ray
task. Empty for the process that assigns all batches to others."""

PROCESSES = "DOP_PROCESSES"
"""Number of processes of a run, set in addition if Ray starts them. ``NODE_RANK`` is their index."""


def taken_batches() -> list[int] | None:
    """Return the batches assigned to this process, or ``None`` if it selects its batches itself.

    Raises:
        ValueError: ``DOP_TAKEN`` does not contain integers.
    """
    given = os.environ.get(BATCHES_VARIABLE)
    if given is None:
        return None
    numbers = [number for number in given.split(",") if number]
    if not all(map(_is_number, numbers)):
        raise ValueError(
            f"the environment variable {BATCHES_VARIABLE} must hold integers separated by commas, got {given!r}"
        )
    return [int(number) for number in numbers]


def given_folder() -> Path | None:
    """Return the folder of the run that the parent process has chosen, if any.

    Raises:
        ValueError: ``DOP_RUN_FOLDER`` is empty or a file.
    """
    given = os.environ.get(RUN_FOLDER)
    if given is None:
        return None
    if not given or Path(given).is_file():
        raise ValueError(f"the environment variable {RUN_FOLDER} must be a folder, got {given!r}")
    return Path(given)


def gives_all_away() -> bool:
    """Return whether this process forms the batches of a run but does not process any of them."""
    return taken_batches() == []


def given_processes() -> int | None:
    """Return the number of processes of the run, if Ray starts them."""
    return _read_number(PROCESSES) if PROCESSES in os.environ else None


def completion_index() -> int | None:
    """Return the index of this pod in an indexed Kubernetes Job, or ``None`` outside of one.

    Raises:
        ValueError: ``JOB_COMPLETION_INDEX`` is not a whole number ≥ 0.
    """
    return _read_number(COMPLETION_INDEX, least=0) if COMPLETION_INDEX in os.environ else None


def is_child() -> bool:
    """Return whether this process was started by another process of the run, which forwards signals to it."""
    return CHILD in os.environ


def is_orphan() -> bool:
    """Return whether the process of the run that started this one has ended."""
    return is_child() and os.getppid() != _read_number(CHILD)


def outer_ranks() -> tuple[int, int] | None:
    """Return (devices per node, nodes) as set by torchrun or SLURM, or ``None`` without them.

    A SLURM job with a single task also gives ``None``.

    Raises:
        ValueError: nodes have different numbers of processes, or a variable is not a whole number ≥ 1.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env and {"WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= env.keys():
        return _ranks_and_nodes(_read_number("WORLD_SIZE"), _read_number("LOCAL_WORLD_SIZE"))
    if "SLURM_PROCID" in env and env.get("SLURM_NTASKS", "1") != "1":
        tasks, nodes = _read_number("SLURM_NTASKS"), _read_number("SLURM_NNODES", "1")
        return _ranks_and_nodes(tasks, -(-tasks // nodes))
    return None


def _read_number(name: str, default: str = "", least: int = 1) -> int:
    given = os.environ.get(name, default)
    if not _is_number(given) or int(given) < least:
        raise ValueError(f"the environment variable {name} must be a whole number of at least {least}, got {given!r}")
    return int(given)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _ranks_and_nodes(world: int, local: int) -> tuple[int, int]:
    if world % local:
        raise ValueError(f"every node must have the same number of processes, got {world} in all, {local} on a node")
    return local, world // local


def job_name() -> str | None:
    """Return a name shared by all processes of a job, also after it is restarted, or ``None`` outside of a job."""
    env = os.environ
    if "SLURM_JOB_ID" in env:
        array = env.get("SLURM_ARRAY_JOB_ID")
        return f"slurm-{array}-{env['SLURM_ARRAY_TASK_ID']}" if array else f"slurm-{env['SLURM_JOB_ID']}"
    run = env.get("TORCHELASTIC_RUN_ID", "none")
    return None if run == "none" else f"torchrun-{run}"


def start_name() -> str:
    """Return a name shared by all processes of this launch, and by as few others as possible."""
    return os.environ.get(START) or job_name() or "run"


@dataclass(frozen=True)
class Place:
    """Rank of this process among those that share one matrix.

    Attributes:
        rank: index of this process, starting at 0.
        size: number of processes.
        local_rank: index of this process on its machine.
        local_size: number of processes on its machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def outer_place() -> Place | None:
    """Return the place of this process as set by torchrun, SLURM or ``dop separate --devices``, if any.

    Raises:
        ValueError: machines have different numbers of processes, or a variable is not a valid number.
    """
    env = os.environ
    if is_child() and PLACE in env:
        numbers = env[PLACE].split("/")
        if len(numbers) != 4 or not all(map(_is_number, numbers)):
            raise ValueError(
                f"the environment variable {PLACE} must hold 4 whole numbers with slashes between, got {env[PLACE]!r}"
            )
        return Place(*map(int, numbers))
    grid = outer_ranks()
    if grid is None:
        return None
    local, nodes = grid
    by_torchrun = "TORCHELASTIC_RUN_ID" in env
    rank = _read_number("RANK" if by_torchrun else "SLURM_PROCID", least=0)
    local_rank = _read_number(
        "LOCAL_RANK" if by_torchrun else "SLURM_LOCALID", "" if by_torchrun else str(rank % local), 0
    )
    return Place(rank, local * nodes, local_rank, local)
