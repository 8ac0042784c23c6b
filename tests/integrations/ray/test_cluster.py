"""A cluster that is running already, with GPUs that it only believes to have."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.ray.builders import end, start, write_config

pytest.importorskip("ray")

WITNESS = """
import os
from pathlib import Path
import pytorch_lightning as pl

class Witness(pl.Callback):
    def on_train_start(self, trainer, module):
        text = f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.environ['OMP_NUM_THREADS']}"
        Path(trainer.default_root_dir, "witness").write_text(text)
"""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=4", "--num-gpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        stop = time.monotonic() + 100
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert head.poll() is None
            assert time.monotonic() < stop, "waited in vain"
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(timeout=60)
        with_group(head.pid)


def with_group(number: int) -> None:
    """End what is left of a process group."""
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_each_point_has_the_requested_gpus_and_threads(tmp_path: Path, address: str) -> None:
    write_config(tmp_path, seeds=1, images="camera")
    (tmp_path / "witness.py").write_text(WITNESS)
    sweep = ["sweep", "--config", "config.yaml", "--axis", "model.alpha=20,30,40", "--out", "out"]
    sweep += ["--trainer.max_steps", "20", "--trainer.callbacks", "witness.Witness"]
    said = end(start(*sweep, "--cluster", "ray", "--address", address, "--gpus", "1", folder=tmp_path))
    assert said.count(": finished") == 3
    seen = [file.read_text() for file in sorted((tmp_path / "out").glob("*/witness"))]
    assert len(seen) == 3
    assert set(seen) == {"0 1", "1 1"}
    more = ["--model.tau", "0.4", "--cluster", "ray", "--address", address, "--gpus", "3"]
    said = end(start(*sweep, *more, folder=tmp_path), 2)
    assert said == "dop sweep: error: gpus must be at most 2, the total of the cluster, got 3\n"
