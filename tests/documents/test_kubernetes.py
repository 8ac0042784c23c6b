"""docs/kubernetes.md: its objects fit together, and its commands share the work among pods.

tests/integrations/ray checks the objects against the models of the Kubernetes client.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dop_lightning.runs.results import read_results
from tests.documents.harness import DOCS, ROOT, blocks, check_dop, prepare

SWEEP, FIT, RAY = (yaml.safe_load(block.code) for block in blocks(DOCS / "kubernetes.md", "yaml"))

TINY = ["--trainer.max_steps", "4", "--trainer.accelerator", "cpu", "--progress.lines", "0", "--data.n", "[12, 9]"]


def words(job: dict[str, Any], out: Path) -> list[str]:
    """The words of a Job's command after ``dop``, with results in a folder of this machine."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "dop"
    return [word.replace("/results", str(out)) for word in container["command"][1:]]


@pytest.mark.parametrize("pod", [
    SWEEP["spec"]["template"],
    FIT["spec"]["template"],
    RAY["spec"]["rayClusterSpec"]["headGroupSpec"]["template"],
    RAY["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"],
])  # fmt: skip
def test_volumes_are_mounted(pod: dict[str, Any]) -> None:
    (container,), (volume,) = pod["spec"]["containers"], pod["spec"]["volumes"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]


@pytest.mark.parametrize(("job", "option"), [(SWEEP, "--parts"), (FIT, "--trainer.num_nodes")])
def test_each_part_has_a_pod(job: dict[str, Any], option: str) -> None:
    spec, given = job["spec"], words(job, Path())
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(given[given.index(option) + 1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_pods_share_the_points_of_a_sweep(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in "10":
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
        said = dop(*words(SWEEP, folder), *TINY[:6], "--data.n", "12", "--data.rank", "1", "--cluster", "debug")
        assert said.status == 0, said.err
        assert said.out.startswith("2 points: 2 to do")
    runs = [path.parent for path in (folder / "taus").glob("*/manifest.json")]
    assert len(runs) == 4
    assert {result["status"] for run in runs for result in read_results(run)} == {"done"}


def test_the_command_of_the_ray_job_is_accepted(folder: Path) -> None:
    command = shlex.split(RAY["spec"]["entrypoint"])
    assert command[-2:] == ["--cluster", "ray"]
    check_dop(command[1:-2])


@pytest.mark.parametrize(("index", "got"), [(None, "none"), ("2", "2")])
def test_missing_part(index: str | None, got: str, folder: Path, dop, monkeypatch) -> None:
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    if index is not None:
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
    said = dop(*words(SWEEP, folder), "--dry-run")
    assert said.status == 2
    assert said.err == (
        f"dop sweep: error: with --parts 2, the environment variable JOB_COMPLETION_INDEX must be 0 to 1, got {got}\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two processes that each import all: minutes on a busy machine
def test_two_pods_share_the_problems_of_a_run(folder: Path) -> None:
    tiny = [*TINY, "--data.rank", "1", "--data.seeds", "1", "--data.batch_size", "1"]
    command = [sys.executable, "-m", "dop_lightning", *words(FIT, folder), *tiny]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pods = [subprocess.Popen(command, env={**environment, "JOB_COMPLETION_INDEX": str(index)}) for index in (0, 1)]
    try:
        assert [pod.wait(timeout=1000) for pod in pods] == [0, 0]
    finally:
        for pod in pods:
            pod.kill()
            pod.wait()
    results = read_results(folder / "grid")
    assert {result["status"] for result in results} == {"done"}
    assert {result["problem"].partition("-")[0] for result in results} == {"n12", "n9"}
    beats = sorted(path.stem for path in (folder / "grid" / "checkpoints" / "processes").glob("*.json"))
    assert beats == ["0000", "0001"]
