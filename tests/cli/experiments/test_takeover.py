"""Work of dead processes. The processes that take it over are bare Pythons here."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment

from dop_lightning.cli.experiments.takeover import Takeover, _Work, take_over
from dop_lightning.foundation.launched import BATCHES_VARIABLE
from dop_lightning.lightning.strategies import ProblemParallelStrategy
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher
from dop_lightning.lightning.strategies.plan import Plan
from dop_lightning.runs.heartbeat import (
    ActiveBatches,
    Heartbeat,
    read_active_batches,
    read_heartbeats,
    start_time,
    write_heartbeat,
)

PLAN = Plan([["a"], ["b"], ["c", "d"], ["e"]], [[0], [1, 2, 3]])

KILLED_BY = """
import os, signal
left = [int(number) for number in os.environ["DOP_TAKEN"].split(",")]
with open("log", "a") as file:
    file.write(f"{{left}} {{os.environ['LOCAL_RANK']}}\\n")
if {deadly} in left:
    with open("checkpoints/processes/0001.at-work", "w") as file:
        file.write("{deadly}\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def trainer(code: str) -> Any:
    """One whose process of rank 1 was killed."""
    launcher = ChildProcessLauncher(LightningEnvironment(), 2, 1, lambda: True)
    launcher.command = [sys.executable, "-c", code]
    launcher.procs = [SimpleNamespace(returncode=-signal.SIGKILL)]
    strategy = ProblemParallelStrategy()
    strategy._launcher, strategy.plan = launcher, PLAN
    strategy.parallel_devices = []
    return SimpleNamespace(strategy=strategy, world_size=2, global_rank=0)


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (BATCHES_VARIABLE, "DOP_CHILD", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def died_at(*batches: int) -> None:
    """Leave what a process leaves that was killed while it advanced batches."""
    ActiveBatches(Path(), 1).write(batches)
    me = start_time(os.getpid())
    write_heartbeat(Path(), Heartbeat(1, "host", 1, me, me, batches=[1, 2, 3], at_work={"c": 7, "d": 7, "e": 9}))


def test_the_batches_are_finished_in_another_process() -> None:
    died_at(2)
    result = _finished(KILLED_BY.format(deadly=-1))
    assert (result.ranks, result.is_complete) == ([1], True)
    assert Path("log").read_text() == "[1, 2, 3] 1\n"


def test_batch_that_kills_two_processes_is_skipped_and_reported(capsys) -> None:
    died_at(2)
    result = _finished(KILLED_BY.format(deadly=2))
    assert Path("log").read_text() == "[1, 2, 3] 1\n[1, 3] 1\n"
    assert (result.ranks, result.is_complete) == ([1], False)
    (line,) = result.left.values()
    assert line == "batch-0002 (c, d): two processes died while they worked on it, the last one was ended by SIGKILL"
    (beat,) = read_heartbeats(Path())
    assert (beat.end, beat.reason, beat.batches, beat.at_work) == ("failed", line, [2], {"c": 7, "d": 7})
    assert capsys.readouterr().err == "The process of rank 1 died; another process takes over its 3 batches\n"


def test_processes_that_die_at_start_are_not_restarted_forever() -> None:
    result = _finished("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert sorted(result.left) == [1, 2, 3]
    assert not result.ranks


def test_a_process_that_fails_otherwise_is_reported() -> None:
    result = _finished("raise SystemExit(2)")
    assert result.failures == ["The process that took over the work of rank 1 ended with the status 2"]
    assert not result.is_complete


def _finished(code: str) -> Takeover:
    made, result = trainer(code), Takeover()
    _Work(made, PLAN, Path(), 1, result).finish(PLAN.ranks[1])
    return result


@pytest.mark.parametrize(
    ("name", "value"), [(BATCHES_VARIABLE, "1"), ("TORCHELASTIC_RUN_ID", "run"), ("DOP_CHILD", str(os.getppid()))]
)
def test_other_launchers_do_not_take_over(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes over itself, processes of torchrun, and those whose first process is alive."""
    monkeypatch.setenv(name, value)
    assert take_over(trainer("raise SystemExit(2)"), Path()) == Takeover()


def test_active_batches_are_recorded(tmp_path: Path) -> None:
    at_work = ActiveBatches(tmp_path, 3)
    assert read_active_batches(tmp_path, 3) == []
    at_work.write([11, 12])
    at_work.write([4])
    assert read_active_batches(tmp_path, 3) == [4]
    at_work.close()
    assert read_active_batches(tmp_path, 3) == []
