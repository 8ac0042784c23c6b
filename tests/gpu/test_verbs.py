"""Every verb that computes, and every config, on a GPU."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.paper.figures import configs
from tests.matrices.scenes.builders import scene, write_folder
from tests.paper.figures.builders import write_tiny
from tests.pretend_cuda import device
from tests.pretend_cuda.checks import ON_PRETENDED, is_pretended
from tests.runs.sweeps.builders import write_configs
from tests.whole_runs.test_configs import CONFIGS, ITERATIONS, RUNS

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_photo(side: int = 24) -> None:
    draw, at = np.random.default_rng(0), np.linspace(0, 3, side)
    clean = 128 + 90 * np.sin(at[:, None, None] + at[:, None] * np.arange(1, 4))
    clean[draw.random(clean.shape) < 0.2] = 255
    Image.fromarray(clean.round().astype(np.uint8)).save("photo.png")


def write_matrix(n: int = 60, m: int = 40) -> None:
    draw = np.random.default_rng(0)
    X = draw.standard_normal((n, 2)) @ draw.standard_normal((2, m))
    X[draw.random((n, m)) < 0.05] += 10
    np.save("matrix.npy", X)


def used_device(folder: str) -> set[str]:
    return {json.loads(path.read_text())["machine"]["device"] for path in Path(folder).rglob("result.json")}


@pytest.mark.parametrize("name", RUNS)
def test_a_config_runs(name: str, tmp_path: Path, dop) -> None:
    layers, small = RUNS[name]
    if "room" in small:
        write_folder(tmp_path / "room", scene()[0][:4])
    files = [argument for layer in layers for argument in ("--config", str(CONFIGS / f"{layer}.yaml"))]
    trainer = ["--trainer.max_steps", "3", "--trainer.accelerator", "gpu", "--trainer.devices", "1"]
    said = dop("fit", *files, *small, *trainer, "--trainer.default_root_dir", "out")
    assert said.status == 0, said.err
    with Path("out/results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["status"], row["iterations"]) for row in rows} == {("done", ITERATIONS.get(name, "3"))}
    assert used_device("out") == {"cuda:0"}


@pytest.mark.parametrize("preset", ["instant", "quick", "default"])
def test_recover(preset: str, dop) -> None:
    write_photo()
    size = [] if preset == "instant" else ["--iterations", "30", "--width", "4"]
    said = dop("recover", "photo.png", "--out", "out", "--device", "cuda", "--preset", preset, *size)
    assert said.status == 0, said.err
    assert "without a CUDA graph" not in said.err
    assert used_device("out") == {"cuda:0"}


def test_recover_in_tiles_with_damage(dop) -> None:
    write_photo(80)
    size = ["--iterations", "4", "--width", "4", "--tile", "64", "--damage", "scratches+rectangles+dust+text"]
    said = dop("recover", "photo.png", "--out", "out", "--device", "gpu", *size)
    assert said.status == 0, said.err


@pytest.mark.parametrize("method", ["auto", "dop", "projections", "convex"])
def test_separate(method: str, dop) -> None:
    write_matrix()
    said = dop("separate", "matrix.npy", "--out", "out", "--device", "cuda", "--method", method)
    assert said.status == 0, said.err
    assert used_device("out") == {"cuda:0"}


def test_separate_a_scene(tmp_path: Path, dop) -> None:
    write_folder(tmp_path / "room", scene()[0][:6])
    said = dop("separate", "room", "--out", "out", "--device", "cuda", "--iterations", "20")
    assert said.status == 0, said.err


def test_figure(tmp_path: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny("2a", tmp_path / "configs")
    monkeypatch.setattr(configs, "config_folder", lambda: tmp_path / "configs")
    said = dop("figure", "2a", "--out", "out", "--device", "cuda")
    assert said.status == 0, said.err
    assert Path("out/2a.png").is_file()
    assert used_device("out") == {"cuda:0"}


def test_doctor(dop) -> None:
    said = dop("doctor")
    assert "on cuda" in said.out
    assert "problem" not in said.out.lower() or said.status == 0, said.out


def run_dop(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command in a separate process, on as many devices."""
    environment = {**os.environ, **(device.environment(2) if is_pretended() else {})}
    command = [sys.executable, "-m", "dop_lightning", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_sweep() -> None:
    write_configs(Path())
    sweep = ["sweep", "--config", "base.yaml", "--out", "out", "--axis", "model.alpha=2,4", "--jobs", "1"]
    done = run_dop(*sweep, "--trainer.accelerator", "gpu", "--trainer.devices", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert used_device("out") == {"cuda:0"}


class TestTwoDevices:
    pytestmark = ON_PRETENDED

    def test_problems_are_shared_by_two_devices(self) -> None:
        data = ["--data.n", "12", "--data.rank", "1", "--data.seeds", "2", "--data.batch_size", "1"]
        trainer = ["--trainer.max_steps", "20", "--trainer.accelerator", "gpu", "--trainer.devices", "2"]
        config = str(CONFIGS / "matrix.yaml")
        done = run_dop("fit", "--config", config, *data, *trainer, "--trainer.default_root_dir", "out")
        assert done.returncode == 0, done.stdout + done.stderr
        assert used_device("out") == {"cuda:0", "cuda:1"}
