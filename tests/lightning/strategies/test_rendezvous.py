"""Decisions of the first process, passed to the others in files of the run folder."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from dop_lightning.foundation.launched import CHILD, START
from dop_lightning.lightning.strategies import rendezvous
from dop_lightning.lightning.strategies.rendezvous import FOLDER, Rendezvous

MATRIX = Path(__file__).parents[3] / "configs" / "matrix.yaml"


def meet(rank: int, ranks: int, run: Path) -> Rendezvous:
    environment: Any = SimpleNamespace(global_rank=lambda: rank, world_size=lambda: ranks)
    return Rendezvous(environment, run)


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", CHILD, START):
        monkeypatch.delenv(name, raising=False)


def test_all_processes_receive_the_decision_of_the_first(tmp_path: Path) -> None:
    def process(rank: int) -> list[Any]:
        here = meet(rank, 3, tmp_path)
        told = [here.share("plan", lambda: {"of": rank}), here.share("plan", lambda: [rank, "again"])]
        here.close()
        return told

    with ThreadPoolExecutor(3) as threads:
        told = list(threads.map(process, range(3)))
    assert told == [[{"of": 0}, [0, "again"]]] * 3
    assert not (tmp_path / FOLDER).exists()


def test_first_process_waits_for_late_ones(tmp_path: Path) -> None:
    first, told = meet(0, 2, tmp_path), []
    first.share("plan", lambda: "it")
    timer = threading.Timer(0.2, lambda: told.append(meet(1, 2, tmp_path).share("plan", lambda: None)))
    timer.start()
    first.close()
    timer.join()
    assert told == ["it"]


def test_restarted_process_is_answered_again(tmp_path: Path) -> None:
    first = meet(0, 2, tmp_path)
    first.share("plan", lambda: "it")
    for _ in range(2):
        assert meet(1, 2, tmp_path).share("plan", lambda: None) == "it"
    first.close()


def test_files_of_an_earlier_start_are_ignored(tmp_path: Path) -> None:
    earlier = meet(0, 3, tmp_path)
    earlier.share("plan", lambda: "old")
    (tmp_path / FOLDER / f"{earlier._start}.plan1.1.{'0' * 32}.ask").touch()  # its process was killed
    while not list((tmp_path / FOLDER).glob("*.told")):
        time.sleep(0.01)
    earlier._stop.set()  # so was the first one
    earlier._thread.join()  # type: ignore[union-attr]
    now = meet(0, 3, tmp_path)
    now.share("plan", lambda: "new")
    assert [meet(rank, 3, tmp_path).share("plan", lambda: None) for rank in (1, 2)] == ["new", "new"]
    now.close()
    assert not (tmp_path / FOLDER).exists()


def test_two_starts_in_one_folder_get_separate_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    for name in "ab":
        monkeypatch.setenv(START, name)
        starts.append((meet(0, 2, tmp_path), meet(1, 2, tmp_path)))
    for k, (first, _) in enumerate(starts):
        first.share("plan", lambda k=k: k)
    with ThreadPoolExecutor(2) as threads:
        told = list(threads.map(lambda start: start[1].share("plan", lambda: None), starts))
    assert told == [0, 1]
    for first, _ in starts:
        first.close()


def test_other_files_in_the_folder_are_ignored(tmp_path: Path) -> None:
    first = meet(0, 2, tmp_path)
    start = first._start
    (tmp_path / FOLDER).mkdir(parents=True)
    for name in (
        "x",
        f"{start}.ask",
        f"{start}.plan9.1.0.ask",
        f"{start}.plan1.1.0.1.ask",
        f"other.plan1.1.{0:032}.ask",
    ):
        (tmp_path / FOLDER / name).write_bytes(b"\xff\x00 garbage")
    first.share("plan", lambda: "it")
    assert meet(1, 2, tmp_path).share("plan", lambda: None) == "it"
    first.close()


def test_full_disk_is_reported_and_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, failures = rendezvous.write_atomically, [OSError(28, "No space left on device")] * 2

    def full(*args: Any, **kwargs: Any) -> None:
        if failures:
            raise failures.pop()
        write(*args, **kwargs)

    monkeypatch.setattr(rendezvous, "write_atomically", full)
    first = meet(0, 2, tmp_path)
    first.share("plan", lambda: "it")
    assert meet(1, 2, tmp_path).share("plan", lambda: None) == "it"
    first.close()
    err = capsys.readouterr().err
    assert err.count("cannot answer the other processes ([Errno 28] No space left on device)") == 1


def test_undecided_first_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "FIRST_PROCESS_TIMEOUT", 0.1)
    with pytest.raises(ValueError, match=r"rank 1: the first process has not sent the plan within 0 s in .*rendezvous"):
        meet(1, 2, tmp_path).share("plan", lambda: None)
    assert not list((tmp_path / FOLDER).iterdir())


def test_ended_first_process_is_not_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHILD, "1234567890")  # nobody's parent
    with pytest.raises(ValueError, match="rank 1: the first process ended before it sent the plan"):
        meet(1, 2, tmp_path).share("plan", lambda: None)


# ------------------------------------------------------------------------------------------------ nothing listens


def listening(pid: int) -> set[str]:
    """Return the addresses where a process listens or waits for datagrams: by the sockets that it has open."""
    kinds = ("tcp", "tcp6", "udp", "udp6")
    own = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                own.add(str(descriptor.readlink()))
            except OSError:  # closed meanwhile
                continue
        tables = {kind: Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:] for kind in kinds}
    except OSError:  # ended meanwhile
        return set()
    rows = [(kind, line.split()) for kind, lines in tables.items() for line in lines]
    return {f"{kind} {row[1]}" for kind, row in rows if f"socket:[{row[9]}]" in own and row[3] in ("0A", "07")}


needs_proc = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads /proc/PID/net")


@needs_proc
def test_listening_sockets_are_detected() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        assert listening(os.getpid()) >= {f"tcp 0100007F:{server.getsockname()[1]:04X}"}
    assert not any(f":{server.getsockname()[1]:04X}" in each for each in listening(os.getpid()))


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("by_torchrun", [False, True])
def test_no_process_of_a_run_listens(by_torchrun: bool, tmp_path: Path) -> None:
    """Looked at all the time, from the start of the processes to their end, over all addresses of the machine."""
    fit = ["fit", "--config", str(MATRIX), "--data.n", "12", "--data.rank", "1", "--data.seeds", "4"]
    fit += ["--data.batch_size", "2", "--trainer.max_steps", "20", "--trainer.accelerator", "cpu"]
    fit += ["--trainer.default_root_dir", str(tmp_path / "out")]
    command = [sys.executable, "-m", "dop_lightning", *fit, "--trainer.devices", "2"]
    if by_torchrun:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "dop_lightning", *fit]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as run:
        parent, found, seen = psutil.Process(run.pid), set(), set()
        reader = ThreadPoolExecutor(1).submit(run.stderr.read)  # type: ignore[union-attr]
        while run.poll() is None:
            try:
                children = {child.pid for child in parent.children(recursive=True)}
            except psutil.NoSuchProcess:
                break
            for pid in children if by_torchrun else children | {run.pid}:  # the agent is torchrun's, not ours
                found |= listening(pid)
            seen |= children
            time.sleep(0.05)
        err = reader.result()
    assert run.returncode == 0, err
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 4
    assert len(seen) >= (2 if by_torchrun else 1)
    assert found == set()
