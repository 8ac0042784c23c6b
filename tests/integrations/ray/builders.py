"""Runs with a local Ray cluster, in separate processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from dop_lightning.runs.heartbeat import PROCESSES
from dop_lightning.runs.results import read_results

ROOT = Path(__file__).resolve().parents[3]

CONFIG = {
    "model": {
        "signal": {
            "class_path": "SkipUNet",
            "init_args": {"width": 4, "scales": 2, "input_channels": 4, "precision": "fp32"},
        },
        "corruption": {"class_path": "HadamardCorruption", "init_args": {"scale": 1e-5, "tied": False}},
        "loss": {"class_path": "SquaredLoss", "init_args": {"reduction": "mean"}},
        "tau": 0.5,
        "alpha": 20.0,
        "block": 10,
        "evaluate_every": 50,
    },
    "data": {
        "class_path": "ImageDataModule",
        "init_args": {
            "images": ["camera", "coffee"],
            "noise": {"class_path": "SaltAndPepper", "init_args": {"ratio": 0.3}},
            "resize": 16,
            "seeds": 6,
            "batch_size": 1,
        },
    },
    "checkpoint": {"every_minutes": 0.01},
    "files": {"most_pictures": 0},
    "trainer": {"max_steps": 150, "accelerator": "cpu"},
}
"""12 problems, a batch each."""


def write_config(folder: Path, **data: object) -> None:
    """Write ``config.yaml``."""
    config = {**CONFIG, "data": {**CONFIG["data"], "init_args": {**CONFIG["data"]["init_args"], **data}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    """Start ``dop``, with one thread per process."""
    return subprocess.Popen(
        [sys.executable, "-m", "dop_lightning", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a process, check how it has ended, and return what it has said."""
    out, said = process.communicate(timeout=250)
    assert process.returncode == status, out + said
    return said


def fit(run: str, *more: str) -> list[str]:
    return ["fit", "--config", "config.yaml", "--trainer.default_root_dir", run, *more]


def at_work(folder: Path, run: str) -> list[int]:
    """The ranks of the processes that advance a batch."""
    files = (folder / run / PROCESSES).glob("*.at-work")
    return [int(file.stem) for file in files if file.stat().st_size]


def until(happens: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 120) -> None:
    stop = time.monotonic() + seconds
    while not happens():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.02)


def kill_worker(driver: subprocess.Popen[str], rank: int) -> bool:
    """Kill the worker process of Ray whose command has this rank, and return whether there was one."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if process.environ().get("NODE_RANK") == str(rank) and "fit" in process.cmdline():
                assert process.parent().name().startswith("ray::")
                process.parent().send_signal(signal.SIGKILL)
                return True
        except psutil.Error:
            continue
    return False


def listening(pid: int) -> dict[str, set[str]]:
    """The addresses that a process and those below it listen on, by their names."""
    top, found = psutil.Process(pid), dict[str, set[str]]()
    for process in [top, *top.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(process.name(), set()).add(connection.laddr.ip)
    return found


def assert_equal(one: Path, other: Path, problems: int) -> None:
    """Check that two runs have recovered the same bits."""
    results = [[{k: v for k, v in row.items() if k != "seconds"} for row in read_results(run)] for run in (one, other)]
    assert results[0] == results[1]
    assert len(results[0]) == problems
    assert {row["status"] for row in results[0]} == {"done"}
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    for row in results[0]:
        first, second = ((run / row["problem"] / "recovered.npy").read_bytes() for run in (one, other))
        assert first == second
