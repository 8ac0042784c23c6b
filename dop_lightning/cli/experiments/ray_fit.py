"""``dop fit … --cluster ray``: run the batches of a run as tasks of a Ray cluster."""

import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl

from dop_lightning.cli.experiments.takeover import TAKEOVER_LOCK, Deaths, Takeover
from dop_lightning.cli.options import OptionParser
from dop_lightning.cli.ray_options import add_ray_options, check_ray_options, connect
from dop_lightning.foundation.folder_lock import FolderLock, in_use
from dop_lightning.foundation.launched import BATCHES_VARIABLE, PROCESSES, RUN_FOLDER
from dop_lightning.lightning.strategies.launcher import environment_variables, format_exit, handling
from dop_lightning.lightning.strategies.plan import Plan, deal
from dop_lightning.lightning.strategies.problem_parallel import ProblemParallelStrategy
from dop_lightning.runs.folder import LOCK, RunFolder
from dop_lightning.runs.locks import Claims
from dop_lightning.runs.ray_tasks import RayTask, RayTasks, TaskEnd, require_ray
from dop_lightning.runs.results import remaining_iterations, write_table

PAUSE = 0.2
"""Maximum number of seconds until a signal is handled while no task ends."""

TASKS_PER_SLOT = 4
"""Maximum number of tasks per slot; with more batches, tasks have several, since starting a process takes seconds."""

LOGS = Path("checkpoints") / "ray"
"""Folder of the output of tasks, within the folder of the run."""

_FINAL = ("done", "stable", "diverged")


def run(arguments: Sequence[str]) -> int:
    """Recover the problems of a config with tasks on a cluster.

    This process forms the batches, waits for the tasks, and prints the table. Each task runs in a separate process, and
    has one batch, or several if there are many. If it dies, another task finishes its batches.

    Returns:
        The exit status of ``dop fit``.

    Raises:
        ValueError: a setting or an option is invalid, or the cluster does not exist.
        ImportError: Ray is not installed.
    """
    parser = OptionParser(prog="dop fit", allow_abbrev=False, add_help=False)
    parser.add_argument("--cluster", choices=["ray"])
    add_ray_options(parser)
    options, rest = parser.parse_known_args(arguments)
    check_ray_options(options)
    require_ray("dop fit")
    lightning = importlib.import_module("dop_lightning.cli.experiments.lightning_cli")
    folder, devices = lightning.folder_and_devices(rest)
    with connect(options, folder, min(devices, 1)) as tasks, environment_variables(_environment(tasks, folder)):
        return int(lightning.run("fit", rest, take=partial(_run_tasks, options=rest, tasks=tasks)))


def _environment(tasks: RayTasks, folder: Path) -> dict[str, str]:
    """Return the environment of this process, which is the first one of the run and has no batches."""
    return {
        BATCHES_VARIABLE: "",
        PROCESSES: str(max(2, tasks.slots + 1)),
        "NODE_RANK": "0",
        RUN_FOLDER: str(folder),
    }


def _run_tasks(trainer: pl.Trainer, run: Path, options: Sequence[str], tasks: RayTasks) -> Takeover:
    """Finish the remaining batches of a run, once the batches are formed."""
    strategy, result = trainer.strategy, Takeover()
    assert isinstance(strategy, ProblemParallelStrategy)
    assert strategy.plan is not None  # the training, without batches, is over
    claims, lock = Claims(run / LOCK), FolderLock(run)
    try:
        if claims.take([TAKEOVER_LOCK]) or not lock.acquire(first=False):
            result.failures.append(in_use(run))
            return result
        left = _unfinished(trainer, strategy.plan, run)
        if left:
            _Fit(strategy.plan, run, options, tasks, result).finish(left)
            write_table(run)
    finally:
        lock.release()
        claims.release()
    return result


def _unfinished(trainer: pl.Trainer, plan: Plan, run: Path) -> dict[int, float]:
    """Return the unfinished batches, and the remaining work of each, in arbitrary units."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    iterations, folder = remaining_iterations(run, data.problems, trainer.max_steps), RunFolder(run)
    problems = {problem.name: problem for problem in data.problems}
    left = {}
    for number, names in enumerate(plan.batches):
        batch = [problems[name] for name in names]
        cost = sum(iterations[problem.name] * problem.entries for problem in batch)
        if cost or not all(_is_final(folder, problem.folder) for problem in batch):
            left[number] = cost
    return left


def _is_final(folder: RunFolder, problem: str) -> bool:
    try:
        return folder.result(problem).get("status") in _FINAL
    except (OSError, ValueError):
        return False


class _Fit:
    """Runs the unfinished batches of a run as tasks."""

    def __init__(self, plan: Plan, run: Path, options: Sequence[str], tasks: RayTasks, result: Takeover) -> None:
        self.run = run
        self.options = options
        self.tasks = tasks
        self.result = result
        self._deaths = Deaths(plan, run, result)
        self._batches: dict[str, list[int]] = {}
        self._ranks: dict[str, int] = {}
        self._signals = 0

    def finish(self, left: Mapping[int, float]) -> None:
        """Finish batches.

        Args:
            left: remaining work of each batch, by number.
        """
        numbers, most = list(left), TASKS_PER_SLOT * self.tasks.slots
        hands = deal([left[number] for number in numbers], min(most, len(numbers)))
        self._ranks = {f"task-{rank:04d}": rank for rank in range(1, len(hands) + 1)}
        self._batches = {name: [numbers[place] for place in hands[rank - 1]] for name, rank in self._ranks.items()}
        (self.run / LOGS).mkdir(parents=True, exist_ok=True)
        with handling(self._handle):
            for name in self._batches:
                self._submit(name)
            done = 0
            while self.tasks.is_busy and self._signals < 2:
                for end in self.tasks.wait(PAUSE):
                    done += self._handle_end(end)
                    print(f"{done} of {len(hands)} tasks have ended", file=sys.stderr)

    def _submit(self, name: str) -> None:
        environment = {
            BATCHES_VARIABLE: ",".join(map(str, self._batches[name])),
            PROCESSES: str(len(self._ranks) + 1),
            "NODE_RANK": str(self._ranks[name]),
            RUN_FOLDER: str(self.run.absolute()),
        }
        log = (self.run / LOGS / f"{name}.txt").absolute()
        self.tasks.submit(RayTask(name, ["fit", *self.options], Path.cwd(), log, environment))

    def _handle_end(self, end: TaskEnd) -> bool:
        """Process the end of a task, and return whether it is final; otherwise, the task is started again."""
        name, batches = end.task.name, self._batches[end.task.name]
        if self.result.stopped_by:
            return True
        if end.death:
            self._deaths.count(self._ranks[name], batches)
            rest = self._deaths.without_deadly(batches, end.death)
            if left := [number for number in batches if number not in rest]:
                self._deaths.report(self._ranks[name], left)
            self._batches[name] = rest
            if rest:
                print(f"{name} {end.death}; another task finishes its work", file=sys.stderr)
                self._submit(name)
            return not rest
        if end.error or end.status:
            how = end.error or format_exit(end.status or 0)
            self.result.failures.append(f"{name}: {how}; see {end.task.log}")
        return True

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        if not self.result.stopped_by:
            self.result.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            print("\nStopping: the tasks save their state (repeat to stop at once)", file=sys.stderr)
            self.tasks.stop()
