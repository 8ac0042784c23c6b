"""The commands and the code of the README, run as they stand but at a tiny size."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.cli.main import main
from tests.matrices.scenes.builders import scene, write_folder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "" for line in block.splitlines() if line.strip()]
DOP = [line.removeprefix(".venv/bin/") for line in COMMANDS if line.removeprefix(".venv/bin/").startswith("dop ")]

TINY_NETWORK = ["--model.signal.init_args.width", "4", "--data.resize", "32"]
TINY = {
    "recover": ["--iterations", "2", "--width", "4"],
    "fit": ["--trainer.max_steps", "2"],
    "sweep": ["--trainer.max_steps", "2", "--data.seeds", "1", "--cluster", "debug"],
}


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the configs, a photograph and a matrix in it."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (21, 34, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    write_folder(tmp_path / "frames", scene()[0][:12])
    np.save(tmp_path / "measurements.npy", generator.standard_normal((12, 9)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny(command: str) -> list[str]:
    """The arguments of a command, and what makes it short."""
    arguments = shlex.split(command)[1:]
    extra = TINY.get(arguments[0], [])
    if "configs/image.yaml" in arguments:
        extra = [*extra, *TINY_NETWORK]
    return [*arguments, *extra]


def test_every_command_is_known() -> None:
    others = [line for line in COMMANDS if line.removeprefix(".venv/bin/") not in DOP]
    assert others == ["pip install ~/dop_lightning", "make demo", "tensorboard --logdir runs/pca"]
    assert len(DOP) >= 10


def test_commands_run_in_their_order(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in DOP:
        assert main(tiny(command)) == 0, (command, capsys.readouterr().err)
    with Image.open(newcomer / "restored" / "photo" / "recovered.png") as restored:
        assert (restored.size, restored.mode) == ((34, 21), "RGB")
    for name in ("corruption.png", "comparison.png"):
        assert (newcomer / "restored" / "photo" / name).is_file()
    assert len((newcomer / "runs" / "pca" / "results.csv").read_text().splitlines()) == 41
    assert "<html" in (newcomer / "restored" / "report.html").read_text()
    assert np.load(newcomer / "parts" / "measurements" / "recovered.npy").shape == (12, 9)
    assert (newcomer / "scene" / "frames" / "background.mp4").is_file()
    assert list((newcomer / "runs" / "pca").glob("*/events.out.tfevents.*")), "tensorboard has nothing to show"


def test_code_runs_and_recovers(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people, engine = [block for kind, block in BLOCKS if kind == "python"]
    short = people.replace('preset="quick"', 'preset="quick", iterations=2, width=4')
    assert short != people
    exec(compile(short, "README.md", "exec"), {})
    rank, error = capsys.readouterr().out.split()
    assert rank == "2"
    assert float(error) < 0.05
    exec(compile(engine, "README.md", "exec"), {})
    found = re.search(r"tensor\(([\d.e-]+)\)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) < 0.1


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


def test_pictures_of_the_readme_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()
    for path in re.findall(r"(?<!!)\[[^\]]*\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists()
