"""Signs of life of processes that are running, ended, were killed, or are on another machine."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dop_lightning.runs.folder import LOCK
from dop_lightning.runs.heartbeat import (
    MAX_SILENCE,
    PROCESSES,
    Heartbeat,
    read_heartbeats,
    remove_heartbeats,
    start_time,
    write_heartbeat,
)
from tests.runs.test_locks import other


def beat(rank: int = 0, **values: object) -> Heartbeat:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_time(os.getpid()), "time": 1000.0}
    return Heartbeat(rank, **{**own, **values})  # type: ignore[arg-type]


def test_heartbeats_are_read_as_written(tmp_path: Path) -> None:
    signs = [beat(), beat(1, at_work={"a": 3, "ü": 4}, batches=[2], iteration=3, maximum=9, rate=0.5, log="/x/y")]
    for sign in reversed(signs):
        write_heartbeat(tmp_path, sign)
    assert read_heartbeats(tmp_path) == signs
    (tmp_path / PROCESSES / "0002.json").write_text('{"rank": 2')
    (tmp_path / PROCESSES / "0003.json").write_text("[]")
    later = (tmp_path / PROCESSES / "0001.json").read_text().replace("{", '{"added_later": 1, ', 1)
    (tmp_path / PROCESSES / "0001.json").write_text(later)
    assert read_heartbeats(tmp_path) == signs
    remove_heartbeats(tmp_path, 1)
    assert read_heartbeats(tmp_path) == signs[:1]
    assert read_heartbeats(tmp_path / "none") == []


def test_local_process_is_identified_by_pid(tmp_path: Path) -> None:
    assert beat().life(tmp_path) == "running"
    assert beat(end="finished").life(tmp_path) == "ended"
    assert beat(started=start_time(os.getpid()) - 100).life(tmp_path) == "killed"  # the number is used again
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    sign = beat(pid=process.pid, started=start_time(process.pid))
    assert sign.life(tmp_path) == "running"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie process is dead too
    assert sign.life(tmp_path) == "killed"
    process.communicate()
    assert sign.life(tmp_path) == "killed"
    with pytest.raises(ProcessLookupError):
        start_time(process.pid)


def test_remote_process_is_identified_by_heartbeats(tmp_path: Path) -> None:
    sign = beat(host="elsewhere", batches=[1])
    assert sign.life(tmp_path, 1000 + MAX_SILENCE) == "running"
    assert sign.life(tmp_path, 1001 + MAX_SILENCE) == "lost"
    assert replace(sign, pause=MAX_SILENCE).life(tmp_path, 1000 + 5 * MAX_SILENCE) == "running"  # it is slow
    assert replace(sign, end="failed").life(tmp_path, 1001 + MAX_SILENCE) == "ended"


def test_remote_process_is_identified_by_its_lock(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    sign, long_after = beat(host="elsewhere", batches=[1]), 1000 + 100 * MAX_SILENCE
    process = other(tmp_path / LOCK, 1)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[]\n"
        assert sign.life(tmp_path, long_after) == "running"
        assert replace(sign, batches=[0]).life(tmp_path, long_after) == "lost"
    finally:
        process.kill()
        process.communicate()
    assert sign.life(tmp_path, long_after) == "lost"


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({}, None),
        ({"maximum": 100, "iteration": 40}, None),
        ({"maximum": 100, "iteration": 40, "rate": 2.0}, 30),
        ({"deadline": 1010.0}, 10),
        ({"maximum": 100, "iteration": 40, "rate": 2.0, "deadline": 1010.0}, 10),
        ({"deadline": 990.0}, 0),
    ],
)
def test_remaining_time_follows_the_rate_or_the_limit(values: dict, left: float | None) -> None:
    assert beat(**values).seconds_left == left
