"""Sweeps as processes on this machine: what ends, what fails, what is killed, and Ctrl-C."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from dop_lightning.runs.sweeps.local import environments, run
from tests.runs.sweeps.builders import ENDLESS, has_begun, result, until, write_configs

SWEEP = ["sweep", "--config", "base.yaml", "--out", "out"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with configs."""
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    return tmp_path


def when(happens: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as another process has done something."""
    thread = threading.Thread(target=lambda: (until(happens), act()), daemon=True)
    thread.start()
    return thread


def fit_of(point: str) -> psutil.Process:
    """The process that writes the log of a point."""
    log = str(Path(f"out/{point}/log.txt").resolve())
    (process,) = [
        child
        for child in psutil.Process().children(recursive=True)
        if log in [file.path for file in child.open_files()]
    ]
    return process


def test_finished_sweep_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run([], tmp_path / "out", 2, print) == ([], 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_points_continue_after_failed_and_killed_ones(folder: Path, dop) -> None:
    for name in ("killed", "orphaned"):
        (folder / f"{name}.yaml").write_text("trainer: {max_steps: 100000000}\n")
    (folder / "wrong.yaml").write_text("model: {alpha: -1}\n")
    axis = ["--axis", "config=wrong.yaml,killed.yaml,orphaned.yaml,none"]
    fits = []

    def kill_worker() -> None:
        fits.append(fit_of("config-orphaned"))
        fits[0].parent().kill()

    kills = [
        when((folder / "out/config-killed/metrics.csv").exists, lambda: fit_of("config-killed").kill()),
        when((folder / "out/config-orphaned/metrics.csv").exists, kill_worker),
    ]
    said = dop(*SWEEP, *axis)
    for kill in kills:
        kill.join()
    assert said.status == 1
    assert said.err.splitlines()[-7:] == [
        "3 points failed:",
        f"config-wrong: {(folder / 'out/config-wrong/log.txt').read_text().splitlines()[-1]}",
        "    out/config-wrong/log.txt",
        "config-killed: killed by SIGKILL",
        "    out/config-killed/log.txt",
        "config-orphaned: killed by SIGKILL",
        "    out/config-orphaned/log.txt",
    ]
    assert "alpha must be a finite number above 0, got -1" in said.err
    assert result(Path("out/config-none"))["status"] == "done"
    assert not fits[0].is_running()
    again = dop(*SWEEP, *axis, "--dry-run").out
    assert [line.split()[2:-1] for line in again.splitlines()[1:5]] == [
        ["to", "do"], ["started"], ["started"], ["finished"],
    ]  # fmt: skip
    assert not list(folder.glob("out/workers-*"))


@pytest.mark.parametrize(
    ("by", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signal_lets_runs_save_and_starts_no_other(by: signal.Signals, status: int, folder: Path, dop) -> None:
    stop = when(lambda: has_begun(folder / "out" / "alpha-2"), lambda: os.kill(os.getpid(), by))
    said = dop(*SWEEP, "--axis", "model.alpha=2,4", *ENDLESS)
    stop.join()
    assert said.status == status
    assert result(Path("out/alpha-2"))["status"] == "interrupted"
    assert Path("out/alpha-2/checkpoints/last.ckpt").is_dir()
    assert not Path("out/alpha-4/log.txt").exists()
    assert said.err.splitlines()[-1] == "Stopped: the same command resumes"
    assert "failed" not in said.err


def test_threads_are_shared_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each["OMP_NUM_THREADS"] for each in environments(2)] == ["1", "1"]  # as tests are run
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("dop_lightning.foundation.machine.usable_cores", lambda: 7)
    assert [each["OMP_NUM_THREADS"] for each in environments(3)] == ["2"] * 3
    assert environments(20)[0]["OMP_NUM_THREADS"] == "1"


def test_gpus_are_assigned_round_robin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments(2)] == ["5", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert environments(1)[0]["CUDA_VISIBLE_DEVICES"] == ""
