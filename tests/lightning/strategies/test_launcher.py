"""Processes that are started and waited for, and that receive signals. They are plain Python processes here."""

import ast
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment

from dop_lightning.foundation.launched import CHILD, RUN_FOLDER, START
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher


def launcher(code: str, processes: int = 2, shared: bool = True) -> ChildProcessLauncher:
    made = ChildProcessLauncher(LightningEnvironment(), processes, 1, lambda: shared)
    made.command = [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]
    return made


TRAINER: Any = SimpleNamespace(default_root_dir="runs/mine")


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_child_processes_have_ranks_and_are_awaited(tmp_path) -> None:
    before = dict(os.environ)
    names = ["LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", CHILD, RUN_FOLDER, START]
    told = f"repr([os.environ[name] for name in {names}])"
    code = f"time.sleep(0.2); open({str(tmp_path)!r} + '/' + os.environ['LOCAL_RANK'], 'w').write({told})"
    made = launcher(code, 3)
    assert made.launch(lambda x: x + 1, 1, trainer=TRAINER) == 2
    for rank in (1, 2):
        assert ast.literal_eval((tmp_path / str(rank)).read_text()) == [
            str(rank),
            "3",
            "0",
            "127.0.0.1",
            str(os.getpid()),
            "runs/mine",
            made._start_name,
        ]
    assert made.failures() == {}
    assert dict(os.environ) == before


def test_one_process_starts_no_other() -> None:
    made = launcher("sys.exit(3)", 1)
    assert made.launch(lambda: 5, trainer=TRAINER) == 5
    assert made.procs == []


def test_processes_of_torchrun_start_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    made = launcher("sys.exit(3)")
    assert made.launch(lambda: 5, trainer=TRAINER) == 5
    assert made.procs == []


def test_end_of_a_process_is_described() -> None:
    made = launcher("os.kill(os.getpid(), signal.SIGKILL) if os.environ['LOCAL_RANK'] == '1' else sys.exit(2)", 4)
    made.launch(lambda: None, trainer=TRAINER)
    assert made.failures() == {1: "was ended by SIGKILL", 2: "ended with the status 2", 3: "ended with the status 2"}


@pytest.mark.parametrize("shared", [True, False])
def test_other_processes_continue_after_the_first_fails_if_planned(shared: bool) -> None:
    def fail() -> None:
        raise OSError("no space left")

    made = launcher("time.sleep(0.5)", shared=shared)
    with pytest.raises(OSError, match="no space left"):
        made.launch(fail, trainer=TRAINER)
    assert [process.returncode for process in made.procs] == [0 if shared else -signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_waiting_is_forwarded(number: signal.Signals, tmp_path, capsys) -> None:
    ready = tmp_path / "ready"
    code = (
        "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, lambda n, f: sys.exit(128 + n))\n"
        f"open({str(ready)!r}, 'w').close(); time.sleep(60)"
    )
    made, handlers = launcher(code), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def send() -> None:
        while not ready.exists():
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    made.launch(thread.start, trainer=TRAINER)
    thread.join()
    assert made.stopped_by == number.name
    assert made.procs[0].returncode == 128 + number
    assert made.failures() == {}
    assert "Stopping the other processes" in capsys.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
