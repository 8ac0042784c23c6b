"""``dop sweep``: its options, its plan, and what is done again; tests/runs/sweeps has processes and SLURM."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dop_lightning.lightning.callbacks import IterationProgress
from tests.runs.sweeps.builders import PROBLEM, result, write_configs

BASE = ["sweep", "--config", "base.yaml", "--out", "out"]
SWEEP = [*BASE, "--axis", "model.alpha=2,4", "--cluster", "debug"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with configs."""
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    return tmp_path


def states(dop, *arguments: str) -> list[str]:
    """States in the printed plan."""
    table = dop(*arguments, "--dry-run").out.split("\n\n")[0].splitlines()
    start, end = table[0].index("status"), table[0].index("folder")
    return [line[start:end].strip() for line in table[1:]]


def when_written(name: str) -> int:
    return (Path("out") / name / PROBLEM / "result.json").stat().st_mtime_ns


@pytest.mark.parametrize("arguments", [["sweep", "--help"], [*SWEEP, "--dry-run"]])
def test_help_and_plan_avoid_heavy_imports(arguments: list[str], folder: Path) -> None:
    probe = (
        "import sys\nfrom dop_lightning.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {"torch", "submitit", "pytorch_lightning"} & set(process.stdout.splitlines()[-1].split())


def test_the_plan_shows_points_and_commands_and_writes_nothing(folder: Path, dop) -> None:
    before = sorted(folder.rglob("*"))
    said = dop(
        *SWEEP, "--axis", "config=none,plain.yaml", "--trainer.max_steps", "7", "--model.tau=1.0e-3", "--dry-run"
    )
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0].split() == ["point", "alpha", "config", "status", "folder"]
    assert lines[2].split() == ["alpha-2_config-plain", "2", "plain.yaml", "to", "do", "out/alpha-2_config-plain"]
    assert lines[5] == ""
    assert lines[7] == (
        "dop fit --config base.yaml --config plain.yaml --model.alpha=2 --trainer.max_steps=7 --model.tau=1.0e-3 "
        "--trainer.default_root_dir=out/alpha-2_config-plain"
    )
    assert sorted(folder.rglob("*")) == before


def test_points_run_and_finished_ones_are_skipped(folder: Path, dop) -> None:
    said = dop(*SWEEP)
    assert said.status == 0
    assert said.out.splitlines()[0] == "2 points: 2 to do"
    assert said.out.splitlines()[-1] == "dop table out prints one table of all"
    assert [result(Path("out") / name)["alpha"] for name in ("alpha-2", "alpha-4")] == [2.0, 4.0]
    summary = json.loads(Path("out/sweep.json").read_text())
    assert summary["axes"] == {"model.alpha": ["2", "4"]}
    assert [point["name"] for point in summary["points"]] == ["alpha-2", "alpha-4"]
    record = json.loads(Path("out/alpha-2/point.json").read_text())
    assert record["axes"] == {"model.alpha": "2"}
    assert record["command"] == "dop fit --config base.yaml --model.alpha=2 --trainer.default_root_dir=out/alpha-2"
    before = when_written("alpha-2")
    wider = [*BASE, "--axis", "model.alpha=8,2", "--cluster", "debug"]
    assert states(dop, *wider) == ["to do", "finished"]
    again = dop(*wider)
    assert again.err.splitlines()[0] == "1 of 1, alpha-8: out/alpha-8"
    assert when_written("alpha-2") == before


def test_more_iterations_continue_and_another_run_is_refused(folder: Path, dop) -> None:
    assert dop(*SWEEP).status == 0
    longer = [*SWEEP, "--trainer.max_steps", "150"]
    assert states(dop, *longer) == ["changed", "changed"]
    assert dop(*longer).status == 0
    assert result(Path("out/alpha-4"))["iterations"] == 150
    assert states(dop, *longer) == ["finished", "finished"]
    (folder / "base.yaml").write_text((folder / "base.yaml").read_text().replace("rank: 1", "rank: 2"))
    for _ in range(2):  # the first attempt must not leave the folder as if it held what was asked for
        assert states(dop, *longer) == ["changed", "changed"]
        said = dop(*longer)
        assert said.status == 1
        assert "2 points failed:\nalpha-2: out/alpha-2: holds another run" in said.err


def test_interrupted_point_resumes(folder: Path, dop, stop_at, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = stop_at(50, signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(IterationProgress, "on_train_batch_end", lambda _, *args: stop.on_train_batch_end(*args))
        said = dop(*SWEEP)
    assert said.status == 130
    assert said.err.splitlines()[-1] == "Stopped: the same command resumes"
    assert states(dop, *SWEEP) == ["started", "to do"]
    assert dop(*SWEEP).status == 0
    assert result(Path("out/alpha-2"))["iterations"] == 100


def test_a_failing_point_is_listed_with_its_log(folder: Path, dop) -> None:
    said = dop(*BASE, "--axis", "model.alpha=-1,2", "--cluster", "debug")
    assert said.status == 1
    assert said.err.splitlines()[-3:] == [
        "1 point failed:",
        "alpha--1: alpha must be a finite number above 0, got -1.0",
        "    out/alpha--1/log.txt",
    ]
    assert "Traceback" in Path("out/alpha--1/log.txt").read_text()
    assert result(Path("out/alpha-2"))["status"] == "done"
    assert states(dop, *BASE, "--axis", "model.alpha=-1,2") == ["to do", "finished"]


def test_methods_are_an_axis(folder: Path, dop) -> None:
    assert dop(*BASE, "--axis", "config=none,plain.yaml", "--cluster", "debug").status == 0
    assert "corruption_density" in result(Path("out/config-none"))
    assert "corruption_density" not in result(Path("out/config-plain"))


AXIS = ["--axis", "model.alpha=2"]
MISTAKES = {
    "nothing": (["sweep"], "the following arguments are required: --config, --axis, --out"),
    "no axis": (BASE, "--axis"),
    "bad axis": ([*BASE, "--axis", "alpha"], "axis must be KEY=V1,V2,…"),
    "folder as an axis": ([*BASE, "--axis", "trainer.default_root_dir=a"], "cannot be set in a sweep"),
    "folder as an option": ([*BASE, *AXIS, "--trainer.default_root_dir", "x"], "cannot be set in a sweep"),
    "twice": ([*BASE, *AXIS, "--model.alpha", "3"], "got model.alpha twice"),
    "stray word": ([*BASE, *AXIS, "stray"], "a setting must be --KEY VALUE, got 'stray'"),
    "setting without value": ([*BASE, *AXIS, "--print_config"], "--print_config must have a value"),
    "another cluster": ([*BASE, *AXIS, "--cluster", "moon"], "invalid choice: 'moon'"),
    "no jobs": ([*BASE, *AXIS, "--jobs", "0"], "jobs must be a whole number of at least 1, got 0"),
    "jobs in this process": ([*BASE, *AXIS, "--cluster", "debug", "--jobs", "2"], "--jobs requires --cluster"),
    "no hours": (
        [*BASE, *AXIS, "--cluster", "slurm", "--hours", "0"],
        "hours must be a finite number above 0, got 0.0",
    ),
    "partition of this machine": ([*BASE, *AXIS, "--partition", "x"], "--partition requires --cluster slurm"),
    "missing config": (["sweep", "--config", "no.yaml", *BASE[3:], *AXIS], "no.yaml: No such file"),
    "missing method": ([*BASE, "--axis", "config=no.yaml"], "no.yaml: No such file"),
    "out is a file": ([*BASE[:-1], "base.yaml", *AXIS], "base.yaml: --out must be a folder, got a file"),
    "out is a run": ([*BASE[:-1], "run", *AXIS], "run: contains a run"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(mistake: str, folder: Path, dop) -> None:
    arguments, named = MISTAKES[mistake]
    (folder / "run").mkdir()
    (folder / "run" / "manifest.json").write_text("{}")
    before = sorted(folder.rglob("*"))
    said = dop(*arguments)
    assert said.status == 2
    assert said.err.startswith("dop sweep: error: ")
    assert said.err.count("\n") == 1
    assert named in said.err
    assert sorted(folder.rglob("*")) == before


def test_slurm_without_submitit_names_the_extra(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "submitit" else real(name))
    said = dop(*BASE, *AXIS, "--cluster", "slurm")
    assert said.status == 2
    assert 'pip install "dop_lightning[cluster]"' in said.err
    assert not Path("out").exists()
