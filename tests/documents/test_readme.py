"""The commands and the code of the README, run as they stand but at a tiny size."""

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents.harness import ROOT, Reader, blocks, commands, prepare, run_python

README = ROOT / "README.md"
ELSEWHERE = ["pip install ~/dop_lightning", "make demo", "tensorboard --logdir runs/pca"]
"""Commands that are not run here."""

TINY_NETWORK = ["--model.signal.init_args.width", "4", "--data.resize", "32"]
TINY = {
    "recover": ["--iterations", "2", "--width", "4"],
    "fit": ["--trainer.max_steps", "2"],
    "sweep": ["--trainer.max_steps", "2", "--data.seeds", "1", "--cluster", "debug"],
}


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the configs, a photograph and a matrix in it."""
    prepare(tmp_path)
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (21, 34, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    np.save(tmp_path / "measurements.npy", generator.standard_normal((12, 9)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, and what makes it short."""
    extra = TINY.get(arguments[0], [])
    if "configs/image.yaml" in arguments:
        extra = [*extra, *TINY_NETWORK]
    return [*arguments, *extra]


def test_every_command_is_known() -> None:
    dop = [command for command in commands(README) if command.startswith("dop ")]
    assert [command for command in commands(README) if command not in dop] == ELSEWHERE
    assert len(dop) >= 7


def test_commands_run_in_their_order(newcomer: Path) -> None:
    Reader(README, smaller=tiny, skip=ELSEWHERE).read("sh")
    with Image.open(newcomer / "restored" / "photo" / "recovered.png") as restored:
        assert (restored.size, restored.mode) == ((34, 21), "RGB")
    for name in ("corruption.png", "comparison.png"):
        assert (newcomer / "restored" / "photo" / name).is_file()
    assert len((newcomer / "runs" / "pca" / "results.csv").read_text().splitlines()) == 41
    assert "<html" in (newcomer / "restored" / "report.html").read_text()
    assert np.load(newcomer / "parts" / "measurements" / "recovered.npy").shape == (12, 9)
    assert list((newcomer / "runs" / "pca").glob("*/events.out.tfevents.*")), "tensorboard has nothing to show"


def test_code_runs_and_recovers(newcomer: Path) -> None:
    people, lightning = blocks(README, "python")
    short = people.code.replace('preset="quick"', 'preset="quick", iterations=2, width=4')
    assert short != people.code
    rank, error = run_python(people._replace(code=short), README).split()
    assert rank == "2"
    assert float(error) < 0.05
    assert float(run_python(lightning, README).split()[-1]) < 0.1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo_starts_the_demo() -> None:
    plan = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "scripts/demo.py" in plan.stdout


def test_demo_writes_its_pictures(newcomer: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py", "--iterations", "2", "--photo", "chelsea"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / "demo.py"), run_name="__main__")
    assert end.value.code == 0
    assert (newcomer / "demo" / "comparison.png").is_file()
    printed = capsys.readouterr().out
    for title in ("input PSNR", "PSNR", "density", "true density", "Gain"):
        assert title in printed


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130
    lightning = blocks(README, "python")[1]
    assert sum(bool(line.strip()) for line in lightning.code.splitlines()) <= 15


def test_pictures_of_the_readme_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file()
