"""What the environment says of how this process was started: by itself, or as one of several."""

import os
from dataclasses import dataclass
from pathlib import Path

CHILD = "DOP_CHILD"
"""Set for processes that another one of the same run has started on this machine: the number of that one."""

PLACE = "DOP_PLACE"
"""Set with it for processes that share one matrix: the four numbers of :class:`Place`, with slashes between them."""

RUN_FOLDER = "DOP_RUN_FOLDER"
"""The folder of the run that such a process belongs to, where it was chosen by the first one."""

START = "DOP_START"
"""A name that such processes and the first one have in common, and no other start: where all are on one machine."""


COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in the pods of an indexed Job: their numbers, from 0 on."""

TAKEN = "DOP_TAKEN"
"""Set for a process that is given the numbers of its batches, with commas between them: to take over work of a dead
process, or as a task of Ray. Empty for the process that gives all of them away."""

PROCESSES = "DOP_PROCESSES"
"""Set with it where Ray starts the processes of a run: how many there are. ``NODE_RANK`` numbers them."""


def taken_batches() -> list[int] | None:
    """Return the batches that this process was given; ``None`` if it has work of its own.

    Raises:
        ValueError: ``DOP_TAKEN`` does not hold whole numbers.
    """
    given = os.environ.get(TAKEN)
    if given is None:
        return None
    numbers = [number for number in given.split(",") if number]
    if not all(map(_is_number, numbers)):
        raise ValueError(f"the environment variable {TAKEN} must hold whole numbers with commas between, got {given!r}")
    return [int(number) for number in numbers]


def given_folder() -> Path | None:
    """Return the folder of the run that the process that has started this one has chosen; ``None`` if none has.

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
    """Whether this process forms the batches of a run, and works on none of them."""
    return taken_batches() == []


def given_processes() -> int | None:
    """Return the number of processes of the run, if Ray starts them."""
    return _number(PROCESSES) if PROCESSES in os.environ else None


def completion_index() -> int | None:
    """Return the number of this pod among those of an indexed Job of Kubernetes; ``None`` elsewhere.

    Raises:
        ValueError: ``JOB_COMPLETION_INDEX`` is no whole number.
    """
    return _number(COMPLETION_INDEX, least=0) if COMPLETION_INDEX in os.environ else None


def is_child() -> bool:
    """Whether another process of the run has started this one, and tells it of signals."""
    return CHILD in os.environ


def is_orphan() -> bool:
    """Whether the process of the run that has started this one has ended."""
    return is_child() and os.getppid() != _number(CHILD)


def outer_ranks() -> tuple[int, int] | None:
    """(devices a node, nodes) as torchrun or SLURM have started processes; ``None`` where they have not.

    A task of SLURM that is the only one is as good as none.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env and {"WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= env.keys():
        return _grid(_number("WORLD_SIZE"), _number("LOCAL_WORLD_SIZE"))
    if "SLURM_PROCID" in env and env.get("SLURM_NTASKS", "1") != "1":
        tasks, nodes = _number("SLURM_NTASKS"), _number("SLURM_NNODES", "1")
        return _grid(tasks, -(-tasks // nodes))
    return None


def _number(name: str, default: str = "", least: int = 1) -> int:
    given = os.environ.get(name, default)
    if not _is_number(given) or int(given) < least:
        raise ValueError(f"the environment variable {name} must be a whole number of at least {least}, got {given!r}")
    return int(given)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _grid(world: int, local: int) -> tuple[int, int]:
    if world % local:
        raise ValueError(f"every node must have as many processes as every other, got {world} with {local} on one")
    return local, world // local


def job_name() -> str | None:
    """A name that all processes of a job have in common, also when it is started again; ``None`` for none."""
    env = os.environ
    if "SLURM_JOB_ID" in env:
        array = env.get("SLURM_ARRAY_JOB_ID")
        return f"slurm-{array}-{env['SLURM_ARRAY_TASK_ID']}" if array else f"slurm-{env['SLURM_JOB_ID']}"
    run = env.get("TORCHELASTIC_RUN_ID", "none")
    return None if run == "none" else f"torchrun-{run}"


def start_name() -> str:
    """Return a name that all processes of this start have in common, and as few others as possible."""
    return os.environ.get(START) or job_name() or "run"


@dataclass(frozen=True)
class Place:
    """The place of this process among those that work on one matrix.

    Attributes:
        rank: from 0 on.
        size: number of processes.
        local_rank: number of this process on its machine.
        local_size: number of processes on its machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def outer_place() -> Place | None:
    """Return the place that torchrun, SLURM or ``dop separate --devices`` has given this process, if any of them has.

    Raises:
        ValueError: machines have different numbers of processes, or a variable is no such number.
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
    rank = _number("RANK" if by_torchrun else "SLURM_PROCID", least=0)
    local_rank = _number("LOCAL_RANK" if by_torchrun else "SLURM_LOCALID", "" if by_torchrun else str(rank % local), 0)
    return Place(rank, local * nodes, local_rank, local)
