"""Sweeps by Ray, with tasks that are played; tests/integrations/ray has real ones."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from dop_lightning.runs.ray_tasks import RayTask, TaskEnd, _require_answer, _run, require_ray
from dop_lightning.runs.sweeps import by_ray
from dop_lightning.runs.sweeps.axes import parse_axis
from dop_lightning.runs.sweeps.points import Point, make_points
from dop_lightning.runs.sweeps.record import recorded
from tests.runs.sweeps.builders import write_configs


class Played:
    """Tasks with predefined ends.

    Args:
        ends: of each task, by its name: an exit status, or how it dies.
    """

    def __init__(self, ends: dict[str, list[Any]]) -> None:
        self.ends = ends
        self.is_stopping = False
        self._waiting: list[RayTask] = []

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, task: RayTask) -> None:
        self._waiting.append(task)

    def wait(self, seconds: float) -> list[TaskEnd]:
        task = self._waiting.pop(0)
        end = self.ends[task.name].pop(0)
        if end == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
            end = 143
        return [TaskEnd(task, end) if isinstance(end, int) else TaskEnd(task, **end)]

    def stop(self) -> None:
        self.is_stopping = True
        self._waiting.clear()


DEATH = {"death": "died with its node"}


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    return make_points([parse_axis("model.alpha=2,4")], ["base.yaml"], [], Path("out"))


def run(points: list[Point], ends: dict[str, list[Any]]) -> tuple[dict[str, str], int, list[str]]:
    said: list[str] = []
    ended, status = by_ray.run(points, Played(ends), said.append)  # type: ignore[arg-type]
    return {end.point.name: end.failure for end in ended}, status, said


def test_a_point_whose_process_dies_is_started_again(points: list[Point]) -> None:
    failures, status, said = run(points, {"alpha-2": [DEATH, 2], "alpha-4": [0]})
    assert status == 0
    assert "alpha-2: died with its node; started again" in said
    assert failures["alpha-4"] == "ended without results for all problems"
    assert failures["alpha-2"] != ""
    assert recorded(points[1].folder)["digest"] == points[1].digest()


def test_point_that_kills_two_processes_is_skipped(points: list[Point]) -> None:
    failures, _, _ = run(points, {"alpha-2": [DEATH, DEATH], "alpha-4": [{"error": "no module"}]})
    assert failures == {
        "alpha-2": "two processes died while they worked on it, the last one died with its node",
        "alpha-4": "no module",
    }


def test_a_signal_stops_the_tasks(points: list[Point]) -> None:
    failures, status, said = run(points, {"alpha-2": ["stop"], "alpha-4": [0]})
    assert status == 143
    assert failures == {"alpha-2": "stopped by SIGTERM; run the sweep again to resume it"}
    assert said[-1] == "Stopping: runs are saving (press again to stop immediately)"


def test_task_runs_a_command_and_forwards_the_stop(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    task = RayTask("task", ["--version"], tmp_path, log)
    assert _run(task, tmp_path / "stop", {"PYTHONPATH": str(Path(by_ray.__file__).parents[3])}) == 0
    assert log.read_text().startswith("dop_lightning ")
    (tmp_path / "stop").touch()
    assert _run(task, tmp_path / "stop", {}) == 143


def test_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch, dop, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'dop fit --cluster ray needs Ray: pip install "dop_lightning\[ray\]"'):
        require_ray("dop fit")
    said = dop("fit", "--config", "configs/matrix.yaml", "--cluster", "ray")
    assert (said.status, said.err) == (
        2,
        'dop fit: error: dop fit --cluster ray needs Ray: pip install "dop_lightning[ray]"\n',
    )


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("head", "it must be HOST:PORT or auto"),
        ("head:many", "it must be HOST:PORT or auto"),
        (":6379", "it must be HOST:PORT or auto"),
    ],
)
def test_an_address_that_does_not_answer_is_refused_at_once(address: str, reason: str) -> None:
    with pytest.raises(ValueError, match="address must be that of a running Ray cluster, got ") as error:
        _require_answer(address)
    assert str(error.value).endswith(f"got {address!r}: {reason}")


def test_an_address_that_answers_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _require_answer(f"127.0.0.1:{server.getsockname()[1]}")
