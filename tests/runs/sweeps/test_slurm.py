"""Sweeps as arrays of SLURM jobs, on a cluster of scripts."""

import json
import os
import signal
from pathlib import Path

import pytest

from dop_lightning.runs.sweeps.slurm import parse_setting
from tests.runs.sweeps.builders import (
    ENDLESS,
    PROBLEM,
    has_begun,
    make_cluster,
    put_first,
    result,
    until,
    write_configs,
)

SWEEP = ["sweep", "--config", "base.yaml", "--axis", "model.alpha=2,-4", "--out", "out", "--cluster", "slurm"]
ONE = [*SWEEP[:4], "model.alpha=2", *SWEEP[5:]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the cluster keeps what it was given; the working directory has configs."""
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    monkeypatch.setenv("PATH", put_first(make_cluster(tmp_path / "cluster")))
    monkeypatch.setattr("dop_lightning.runs.sweeps.slurm.PAUSE", 0.1)
    return tmp_path / "cluster"


@pytest.fixture
def idle(cluster: Path) -> Path:
    """The same, where jobs wait for ever."""
    (cluster / "bin" / "sbatch").write_text(f'#!/bin/bash\ncp "$1" {cluster}/script.sh\necho Submitted batch job 42\n')
    return cluster


def script(cluster: Path) -> set[str]:
    return {line for line in (cluster / "script.sh").read_text().splitlines() if line.startswith("#SBATCH")}


def test_jobs_run_and_failures_are_reported(cluster: Path, dop) -> None:
    said = dop(*SWEEP, "--wait")
    assert said.status == 1
    assert "#SBATCH --array=0-1%2" in script(cluster)
    assert result(Path("out/alpha-2"))["status"] == "done"
    assert "alpha-2: finished" in said.err
    assert "1 point failed:\nalpha--4: " in said.err
    assert "alpha must be a finite number above 0, got -4.0" in said.err
    assert "out/alpha--4/log.txt" in said.err
    points = json.loads(Path("out/sweep.json").read_text())["points"]
    assert {point["name"]: point["job"] for point in points} == {"alpha-2": "42_0", "alpha--4": "42_1"}
    dry = dop(*SWEEP, "--dry-run").out
    assert [line.split()[:3] for line in dry.splitlines()[1:3]] == [
        ["alpha-2", "2", "finished"],
        ["alpha--4", "-4", "to"],
    ]


def test_time_limit_saves_and_requeues_the_run(cluster: Path, dop) -> None:
    assert dop(*ONE, *ENDLESS).status == 0
    run = Path("out/alpha-2")
    until(lambda: has_begun(run))
    os.kill(int((cluster / "pid_0").read_text()), signal.SIGUSR2)
    until(lambda: (cluster / "scontrol").exists())
    assert (cluster / "scontrol").read_text() == "requeue 42\n"
    until((run / PROBLEM / "result.json").exists)  # the checkpoint comes first
    assert result(run)["status"] == "interrupted"


def test_options_reach_sbatch(idle: Path, dop) -> None:
    said = dop(
        *SWEEP, "--partition", "gpu", "--gpus", "1", "--cpus", "8", "--hours", "1.5", "--memory", "16", "--jobs", "1",
        "--slurm", "account=lab", "--slurm", "gpu-bind=closest", "--slurm", "setup=[module load gcc]",
    )  # fmt: skip
    assert said.status == 0
    assert said.out.splitlines()[:4] == ["2 points: 2 to do", "job   point", "42_0  alpha-2", "42_1  alpha--4"]
    wanted = "job-name=dop-out partition=gpu gpus-per-node=1 cpus-per-task=8 time=90 mem=16GB array=0-1%1 account=lab"
    for option in [*wanted.split(), "gpu-bind=closest"]:
        assert f"#SBATCH --{option}" in script(idle)
    assert "\nmodule load gcc\n" in (idle / "script.sh").read_text()


def test_queued_points_are_not_resubmitted(idle: Path, dop) -> None:
    assert dop(*SWEEP).status == 0
    (idle / "script.sh").unlink()
    (idle / "queue").write_text("42_0\n42_1\n7\n")
    again = dop(*SWEEP)
    assert (again.status, again.out, again.err) == (0, "2 points: 2 in the queue\n", "Nothing to submit\n")
    (idle / "queue").write_text("42_1\n")
    assert "1 in the queue, 1 to do" in dop(*SWEEP).out
    points = json.loads(Path("out/sweep.json").read_text())["points"]
    assert [point["job"] for point in points] == ["42", "42_1"]


def test_missing_slurm_is_reported(tmp_path: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = dop(*SWEEP)
    assert said.status == 2
    assert (
        said.err
        == "dop sweep: error: cluster slurm needs sbatch and srun on the PATH, got none; log in to the cluster\n"
    )


def test_sbatch_errors_are_one_line(cluster: Path, dop) -> None:
    (cluster / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    said = dop(*SWEEP)
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert "sbatch refused the jobs" in said.err
    assert "invalid partition" in said.err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("account=lab", "lab"),
        ("nice=10", 10),
        ("exclusive=true", True),
        ("begin=16:00", "16:00"),
        ("x=[a, b]", ["a", "b"]),
    ],
)
def test_settings_of_sbatch(text: str, wanted: object) -> None:
    assert parse_setting(text) == (text.partition("=")[0], wanted)


@pytest.mark.parametrize(
    ("text", "named"),
    [("account", "KEY=VALUE"), ("=x", "KEY=VALUE"), ("time=3", "--hours"), ("--mem=3G", "--memory"), ("x=[a", "list")],
)
def test_refused_settings(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_setting(text)
