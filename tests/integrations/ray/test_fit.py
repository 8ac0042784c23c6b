"""``dop fit --cluster ray`` against ``dop fit``."""

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.integrations.ray.builders import (
    assert_equal,
    at_work,
    end,
    fit,
    kill_worker,
    listening,
    start,
    until,
    write_config,
)
from tests.runs.sweeps.builders import has_begun

pytest.importorskip("ray")

KILLER = """
import os, signal
import pytorch_lightning as pl

class Killer(pl.Callback):
    def on_train_batch_end(self, *args):
        if os.environ.get("DOP_TAKEN") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config of 12 problems, and ``one``, the run of a single process."""
    path = tmp_path_factory.mktemp("fit")
    write_config(path)
    end(start(*fit("one"), folder=path))
    return path


def test_a_local_cluster_listens_on_the_loopback_interface_only(folder: Path) -> None:
    driver = start(*fit("private", "--cluster", "ray"), folder=folder)
    until(lambda: len(at_work(folder, "private")) > 1, driver)
    found = listening(driver.pid)
    driver.send_signal(signal.SIGTERM)
    end(driver, 143)
    assert {"gcs_server", "raylet"} <= found.keys()
    assert {address for addresses in found.values() for address in addresses} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_12_problems_are_recovered_though_a_worker_is_killed_twice(folder: Path) -> None:
    driver = start(*fit("killed", "--cluster", "ray"), folder=folder)
    killed: set[int] = set()
    while len(killed) < 2:
        until(lambda: set(at_work(folder, "killed")) - killed, driver)
        rank = min(set(at_work(folder, "killed")) - killed or {0})
        if rank and kill_worker(driver, rank):
            killed.add(rank)
    said = end(driver)
    assert said.count("died with its Ray worker process; another task finishes its work") == 2
    assert_equal(folder / "one", folder / "killed", 12)
    assert "num_nodes: 1" in (folder / "killed" / "config.yaml").read_text()


def test_run_started_with_ray_resumes_without_it(folder: Path) -> None:
    driver = start(*fit("begun", "--cluster", "ray"), folder=folder)
    until(lambda: at_work(folder, "begun"), driver)
    driver.send_signal(signal.SIGTERM)
    said = end(driver, 143)
    assert "Stopped by SIGTERM; the same command resumes the run" in said
    end(start(*fit("begun"), folder=folder))
    assert_equal(folder / "one", folder / "begun", 12)


def test_run_started_without_ray_resumes_with_it(folder: Path) -> None:
    process = start(*fit("other"), folder=folder)
    until(lambda: has_begun(folder / "other"), process)
    process.send_signal(signal.SIGTERM)
    end(process, 143)
    end(start(*fit("other", "--cluster", "ray", "--jobs", "2"), folder=folder))
    assert_equal(folder / "one", folder / "other", 12)


def test_batch_that_kills_two_processes_is_skipped_and_reported(folder: Path) -> None:
    (folder / "killer.py").write_text(KILLER)
    few = ["--data.seeds", "1", "--trainer.callbacks+", "killer.Killer"]
    said = end(start(*fit("left", *few, "--cluster", "ray"), folder=folder), 1)
    assert said.count("was ended by SIGKILL; another task finishes its work") == 1
    assert ": two processes died while they worked on it, the last one was ended by SIGKILL" in said
    assert said.splitlines()[-1] == "Repeat the command to finish the rest"
    end(start(*fit("left", *few), folder=folder))
    assert str(len(list((folder / "left").glob("*/result.json")))) == "2"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--address", "127.0.0.1:1"],
            "address must be that of a running Ray cluster, got '127.0.0.1:1': Connection refused",
        ),
        (["--cpus", "4000"], "cpus must be at most "),
    ],
)
def test_missing_cluster_is_one_line(folder: Path, options: list[str], text: str) -> None:
    said = end(start(*fit("none", "--cluster", "ray", *options), folder=folder), 2)
    (line,) = said.splitlines()
    assert line.startswith(f"dop fit: error: {text}")


def test_another_service_at_the_address_is_one_line_in_bounded_time(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, begun = f"127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        said = end(start(*fit("none", "--cluster", "ray", "--address", address), folder=folder), 2)
    assert time.monotonic() - begun < 70
    (line,) = said.splitlines()
    assert line.startswith(f"dop fit: error: address must be that of a running Ray cluster, got {address!r}")
