"""Status of problems and runs from their files: done, running, waiting, stopped, failed or lost."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from dop_lightning.runs.folder import MANIFEST
from dop_lightning.runs.heartbeat import MAX_SILENCE, Heartbeat, start_time, write_heartbeat
from dop_lightning.runs.status import RunStatus, is_running, read_status
from tests.runs.builders import write_run

NOW = 1_000_000.0
DEAD = 2**22 + 1
"""No process has this number."""


def sign(run: Path, rank: int = 0, **values: object) -> None:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_time(os.getpid()), "time": NOW}
    write_heartbeat(run, Heartbeat(rank, **{**own, **values}))  # type: ignore[arg-type]


def write(run: Path, **statuses: str | None) -> Path:
    return write_run(run, {name: None if s is None else {"status": s} for name, s in statuses.items()}, pictures=())


def status(run: Path) -> RunStatus:
    (found,) = read_status([run], NOW)
    return found


def problems(run: Path) -> dict[str, tuple[str, int | None]]:
    return {problem.name: (problem.status, problem.iterations) for problem in status(run).problems}


def test_a_run_that_has_ended(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a="done", b="diverged", c="stable")
    sign(run, end="finished")
    found = status(run)
    assert (found.status, found.reason, found.has_failed) == ("done", "", False)
    assert found.counts == {"done": 1, "stable": 1, "diverged": 1}
    assert problems(run)["a"] == ("done", 100)
    assert not is_running(run)


def test_running_run(tmp_path: Path) -> None:
    """``a`` was done with fewer iterations in an earlier start; ``b`` has converged."""
    run = write(tmp_path / "run", a="done", b="stable", c=None, d=None, e="interrupted")
    sign(run, at_work={"a": 350, "c": 350}, iteration=350, maximum=1000, rate=10.0, log=str(run / "log.txt"))
    sign(run, rank=1, at_work={"d": 500}, iteration=500, maximum=1000, rate=5.0)
    found = status(run)
    assert (found.status, found.iterations, found.maximum, found.rate) == ("running", 350, 1000, 5.0)
    assert found.seconds_left == 100
    assert read_status([run], NOW + 40)[0].seconds_left == 60
    assert read_status([run], NOW + 400)[0].seconds_left == 0
    assert found.log == run / "log.txt"
    assert problems(run) == {
        "a": ("running", 350),
        "b": ("stable", 100),
        "c": ("running", 350),
        "d": ("running", 500),
        "e": ("interrupted", 100),
    }
    assert is_running(run)


def test_hanging_process_is_running_and_reported(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a=None)
    sign(run, at_work={"a": 350}, time=NOW - MAX_SILENCE - 1)
    found = status(run)
    assert (found.status, found.has_failed) == ("running", False)
    where = f"process {os.getpid()} on {socket.gethostname()}"
    assert f"{where} exists, but has sent no heartbeat since" in found.reason
    sign(run, at_work={"a": 350}, time=NOW - MAX_SILENCE)
    assert status(run).reason == ""


def test_starting_run(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a=None)
    assert (status(run).status, problems(run)) == ("waiting", {"a": ("waiting", None)})
    sign(run)
    assert status(run).status == "starting"


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a="done", b=None, c="interrupted", d=None)
    sign(run, pid=DEAD, at_work={"b": 70, "c": 70})
    found = status(run)
    assert (found.status, found.has_failed) == ("failed", True)
    assert found.reason.startswith(f"process {DEAD} on {socket.gethostname()} was killed, its last heartbeat was at ")
    assert problems(run) == {"a": ("done", 100), "b": ("failed", 70), "c": ("failed", 70), "d": ("waiting", None)}


def test_one_of_two_processes_was_killed(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a=None, b=None)
    sign(run, at_work={"a": 70})
    sign(run, rank=1, pid=DEAD, at_work={"b": 60})
    found = status(run)
    assert (found.status, found.counts, found.has_failed) == ("running", {"running": 1, "failed": 1}, True)
    assert f"process {DEAD} on" in found.reason


def test_a_run_that_failed(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a=None)
    sign(run, at_work={"a": 70}, end="failed", reason="No space left on device")
    assert problems(run) == {"a": ("failed", 70)}
    assert status(run).reason.endswith("failed: No space left on device")


def test_a_run_of_another_machine(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a=None)
    sign(run, host="node7", pid=5, at_work={"a": 70}, time=NOW - MAX_SILENCE)
    assert status(run).status == "running"
    sign(run, host="node7", pid=5, at_work={"a": 70}, time=NOW - MAX_SILENCE - 1)
    found = status(run)
    assert (found.status, problems(run), found.has_failed) == ("lost", {"a": ("lost", 70)}, True)
    day = time.strftime("%Y-%m-%d", time.localtime(NOW - MAX_SILENCE - 1))
    assert found.reason.startswith(f"no heartbeat from process 5 on node7 since {day} ")


def test_a_run_that_was_stopped(tmp_path: Path) -> None:
    run = write(tmp_path / "run", a="done", b="interrupted")
    sign(run, at_work={"b": 70}, end="stopped", reason="SIGTERM")
    found = status(run)
    assert (found.status, found.reason, found.has_failed) == ("interrupted", "stopped by SIGTERM", False)


def test_an_image_in_tiles_is_one_problem(tmp_path: Path) -> None:
    run = write(tmp_path / "run", photo=None)
    manifest = json.loads((run / MANIFEST).read_text())
    manifest["problems"][0]["tiles"] = ["photo-r0-c0", "photo-r0-c1"]
    (run / MANIFEST).write_text(json.dumps(manifest))
    sign(run, at_work={"photo-r0-c0": 20, "photo-r0-c1": 10})
    assert problems(run) == {"photo": ("running", 10)}


def test_runs_without_heartbeats_use_their_results(tmp_path: Path) -> None:
    """Those of earlier versions."""
    run = write(tmp_path / "run", a="done", b="interrupted", c=None)
    assert status(run).status == "interrupted"
    assert problems(run) == {"a": ("done", 100), "b": ("interrupted", 100), "c": ("waiting", None)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    names = ["done", "refused", "begins", "waits", "again"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "point.json").write_text("{}")
    (tmp_path / "done").joinpath("point.json").unlink()
    (tmp_path / "done").rmdir()
    (tmp_path / "again").joinpath("point.json").unlink()
    (tmp_path / "again").rmdir()
    write(tmp_path / "done", a="done")
    write(tmp_path / "again", a="done")
    (tmp_path / "done" / "log.txt").write_text("$ dop fit\nmean rel. error: 1\n")
    (tmp_path / "refused" / "log.txt").write_text("$ dop fit\ndop fit: error: n must be at least 1, got 0\n")
    (tmp_path / "begins" / "log.txt").write_text("$ dop fit\n")
    (tmp_path / "again" / "log.txt").write_text("$ dop fit\ndop fit: error: again: holds another run (…)\n")
    points = [{"name": name, **({"job": "77_3"} if name == "waits" else {})} for name in names]
    (tmp_path / "sweep.json").write_text(json.dumps({"axes": {}, "points": points}))
    return tmp_path


def test_points_of_a_sweep(sweep: Path) -> None:
    manifest = sweep / "again" / MANIFEST
    os.utime(manifest, (NOW, NOW))
    found = {each.name: (each.status, each.reason) for each in read_status([sweep])}
    assert list(found) == ["done", "refused", "begins", "waits", "again"]
    assert found == {
        "done": ("done", ""),
        "refused": ("failed", "dop fit: error: n must be at least 1, got 0"),
        "begins": ("starting", ""),
        "waits": ("waiting", "job 77_3"),
        "again": ("failed", "dop fit: error: again: holds another run (…)"),
    }
    os.utime(sweep / "again" / "log.txt", (NOW - 1, NOW - 1))  # and it has been run since
    assert read_status([sweep])[-1].status == "done"


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no run"):
        read_status([tmp_path])
    with pytest.raises(ValueError, match="must be the folder of a run"):
        read_status([tmp_path / "none"])
