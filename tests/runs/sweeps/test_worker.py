"""Points in forks of one worker: they do not affect each other, and equal those of ``dop fit``."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dop_lightning.foundation.waiting import SPIN_COUNT
from dop_lightning.runs.sweeps import worker
from dop_lightning.runs.sweeps.local import run
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.serving import may_fork
from tests.runs.sweeps.builders import result, write_configs

SWEEP = ["sweep", "--config", "base.yaml", "--out", "out"]

PARTS = '''
import atexit, ctypes, logging, os, random, signal, threading, time, warnings

import numpy as np
import pytorch_lightning as pl
import torch


class Careless(pl.Callback):
    """Leaves behind all that a process has."""

    def on_train_end(self, trainer, module):
        os.write(1, b"from a library in C\\n")
        self.notes = open("notes.txt", "w")
        self.notes.write("not flushed")
        atexit.register(lambda: open("left.txt", "w").close())
        threading.Thread(target=lambda: (time.sleep(0.2), open("thread.txt", "w").close())).start()
        torch.manual_seed(1); np.random.seed(1); random.seed(1)
        torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.use_deterministic_algorithms(True)
        torch.set_num_threads(2)
        warnings.simplefilter("error"); logging.disable(logging.CRITICAL); pl.Trainer.fit = None
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.environ["OMP_NUM_THREADS"] = "2"


class Crash(pl.Callback):
    def on_train_start(self, trainer, module):
        print("about to crash")
        ctypes.string_at(0)
'''

IMAGE = """
model:
  signal: {class_path: SkipUNet, init_args: {width: 4, scales: 2, input_channels: 4, precision: fp32}}
  tau: 0.5
  alpha: 20.0
  block: 5
data:
  class_path: ImageDataModule
  init_args: {images: camera, resize: 16, noise: {class_path: SaltAndPepper, init_args: {ratio: 0.3}}}
trainer: {max_steps: 10}
"""
"""Over the base config: a network instead of a factor."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with configs and parts of a user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    write_configs(tmp_path)
    (tmp_path / "parts.py").write_text(PARTS)
    for name in ("Careless", "Crash"):
        (tmp_path / f"{name.lower()}.yaml").write_text(f"trainer: {{callbacks: [{{class_path: parts.{name}}}]}}\n")
    (tmp_path / "image.yaml").write_text(IMAGE)
    (tmp_path / "two.yaml").write_text(
        "data: {init_args: {seeds: 2, batch_size: 1}}\ntrainer: {devices: 2, strategy: problem_parallel}\n"
    )
    return tmp_path


def log(point: str) -> list[str]:
    return Path(f"out/{point}/log.txt").read_text().splitlines()


@pytest.mark.slow
def test_point_equals_that_of_a_separate_process(folder: Path, dop) -> None:
    said = dop(*SWEEP, "--axis", "config=careless.yaml,crash.yaml,image.yaml,two.yaml")
    assert said.status == 1
    assert said.err.splitlines()[-3:] == [
        "1 point failed:",
        "config-crash: killed by SIGSEGV",
        "    out/config-crash/log.txt",
    ]
    assert result(Path("out/config-careless"))["status"] == "done"
    assert "from a library in C" in log("config-careless")
    assert (folder / "notes.txt").read_text() == "not flushed"
    assert (folder / "left.txt").exists()
    assert (folder / "thread.txt").exists()
    command = [sys.executable, "-m", "dop_lightning", "fit", "--config", "base.yaml", "--config", "image.yaml"]
    subprocess.run([*command, "--trainer.default_root_dir", "alone"], check=True, capture_output=True)
    (name,) = [file.parent.name for file in Path("alone").glob("*/recovered.npy")]
    for file in ("recovered.npy", "recovered.png"):
        assert Path(f"alone/{name}/{file}").read_bytes() == Path(f"out/config-image/{name}/{file}").read_bytes()
    assert Path("alone/metrics.csv").read_text() == Path("out/config-image/metrics.csv").read_text()
    results = [json.loads(path.read_text()) for path in Path("out/config-two").glob("*/result.json")]
    assert [each["status"] for each in results] == ["done", "done"]
    assert "on this process and 1 more" in log("config-two")[1]


LIGHT = """
import os, sys
from multiprocessing.connection import Connection

from dop_lightning.runs.sweeps.serving import serve


def fit(arguments):
    print("process", os.getpid())
    sys.exit("no such point")


sys.exit(serve(Connection(int(sys.argv[1])), fit, fork=sys.argv[2] == "fork"))
"""
"""A worker without imports, whose points fail."""


def test_without_forks_each_point_has_a_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FORKS", False)
    monkeypatch.setattr(worker, "PROGRAM", "light")
    (folder / "light.py").write_text(LIGHT)
    points = [Point(name, {}, ("base.yaml",), (), Path("out") / name) for name in ("a", "b", "c")]
    ended, status = run(points, Path("out"), 1, print)
    assert status == 0
    assert [(end.point.name, end.failure) for end in ended] == [(name, "no such point") for name in ("a", "b", "c")]
    assert len({log(point.name)[1] for point in points}) == 3
    assert not list(folder.glob("out/workers-*"))


def test_worker_that_cannot_start_is_reported_with_its_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PROGRAM", "no_such_module")
    points = [Point(name, {}, ("base.yaml",), (), Path("out") / name) for name in ("a", "b")]
    ended, status = run(points, Path("out"), 1, print)
    assert status == 0
    (log,) = {end.log for end in ended}
    assert [end.failure.partition(": ")[2] for end in ended] == ["No module named no_such_module"] * 2
    assert log.read_text().count("No module named no_such_module") == 2


@pytest.mark.parametrize("program", ["no_such_module", "light"])
def test_a_process_that_ended_before_its_first_point_is_replaced_only_if_it_was_killed(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FORKS", False)
    monkeypatch.setattr(worker, "PROGRAM", program)
    (folder / "light.py").write_text(LIGHT)
    point = Point("a", {}, ("base.yaml",), (), Path("out/a"))
    one = worker.Worker({}, folder / "worker.txt")
    if program == "light":
        one._processes[0].kill()
    one._processes[0]._process.wait()
    one.begin(point, is_last=True)
    assert one.connection.poll(100)
    end = one.ended()
    one.close()
    assert end is not None
    said = {"no_such_module": "No module named no_such_module", "light": "no such point"}[program]
    assert end.failure.endswith(said)
    assert (folder / "worker.txt").read_text().count("No module named") == (program == "no_such_module")


def test_a_process_with_threads_does_not_fork() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert not may_fork()
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize("chosen", [None, "7"])
def test_worker_threads_wait_like_those_of_dop(
    chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if chosen is not None:
        monkeypatch.setenv("GOMP_SPINCOUNT", chosen)
    started: list[dict[str, str]] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str], **options: object) -> None:
            started.append(env)

        terminate = kill = wait = staticmethod(lambda: 0)

    monkeypatch.setattr(worker.subprocess, "Popen", Process)
    worker.Worker({"OMP_NUM_THREADS": "2"}, tmp_path / "log.txt").close()
    assert started[0]["GOMP_SPINCOUNT"] == (chosen or SPIN_COUNT)
    assert started[0]["OMP_NUM_THREADS"] == "2"
