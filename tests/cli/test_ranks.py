"""``dop separate --devices``: matrices whose rows are spread over processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dop_lightning.cli import ranks
from dop_lightning.cli.main import main
from dop_lightning.engine.projections import AlternatingProjections
from dop_lightning.foundation.checksums import file_checksum
from dop_lightning.matrices.mapped import separate_mapped
from dop_lightning.matrices.mapped_folder import REJECTED
from tests.engine.projections.builders import problem, relative_error
from tests.matrices.storage.builders import store

ROOT = Path(__file__).parents[2]

DRIVER = """
import os, signal, sys, time
from dop_lightning.cli.main import main
from dop_lightning.engine.projections import Recovery
from dop_lightning.foundation.launched import outer_place
from dop_lightning.matrices import mapped

def separate(*arguments):
    return whole(*arguments, save_after=0.0)

def step(recovery):
    original(recovery)
    if recovery.steps_done == 5 and outer_place().rank == 1:
        {act}

from dop_lightning.cli import ranks
original, Recovery.step = Recovery.step, step
whole, ranks.separate_mapped = ranks.separate_mapped, separate
sys.exit(main(sys.argv[1:]))
"""
"""What a process runs in the place of the command: it saves after each pass, and rank 1 does something in pass 5."""


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "DOP_CHILD", "DOP_PLACE", "DOP_MEETING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", problem(151, 120).observation.numpy())
    return tmp_path / "a.npy"


def low_rank_of(folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(folder / "recovered.npy"))


def command(file: Path, devices: int = 2) -> list[str]:
    return ["separate", str(file), "--out", str(file.parent / "out"), "--devices", str(devices), "--device", "cpu"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of two processes that were not disturbed, and what they printed."""
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "a.npy", problem(151, 120).observation.numpy())
    run = [sys.executable, "-m", "dop_lightning", *command(folder / "a.npy")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout, done.stderr


def act_in_pass_5(monkeypatch: pytest.MonkeyPatch, folder: Path, act: str) -> None:
    (folder / "driver.py").write_text(DRIVER.format(act=act))
    monkeypatch.setattr(ranks, "COMMAND", (sys.executable, str(folder / "driver.py"), "separate"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_two_processes_equal_one(whole: tuple[Path, str, str], file: Path, tmp_path: Path) -> None:
    folder, out, err = whole
    result = json.loads((folder / "a" / "result.json").read_text())
    assert err.count(": pass ") == result["iterations"], "the first process alone prints"
    assert "a: alternating projections, rank 3; hidden entries are predicted exactly" in err
    assert "\na        stable" in out
    assert out.endswith(f"Files: {folder}\n")
    assert result["ranks"]["processes"] == 2
    assert result["ranks"]["sent"] > 0
    assert result["files"] == {name: file_checksum(folder / "a" / name) for name in ("recovered.npy", "corruption.npy")}
    expected = separate_mapped(file, tmp_path / "one", AlternatingProjections(), say=lambda _: None)
    assert relative_error(low_rank_of(folder / "a"), low_rank_of(tmp_path / "one")) < 1e-5
    assert result["corruption_density"] == pytest.approx(expected["corruption_density"], abs=1e-3)
    sparse = np.load(folder / "a" / "corruption.npy") - np.load(tmp_path / "one" / "corruption.npy")
    assert float(np.abs(sparse).max()) < 1e-3
    names = sorted(path.name for path in folder.rglob("*") if path.is_file())
    parts = ["corruption.npy", "recovered.npy", "result.json"]
    assert names == sorted([*parts, "manifest.json", "manifest.json", "results.csv"]), "nothing else is left"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("raise OSError(5, 'cannot read')", "process 1 of 2: OSError: [Errno 5] cannot read"),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGKILL)",
            "process 1 of 2 was killed by SIGKILL; the same command resumes from the last saved pass",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_process_that_fails_ends_all_and_one_process_resumes(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    act: str,
    message: str,
) -> None:
    act_in_pass_5(monkeypatch, tmp_path, act)
    assert main(command(file)) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("a.npy: pass ")]
    assert lines == [f"dop separate: error: {message}"]
    assert not list((tmp_path / "out").glob(".ranks-*"))
    out = tmp_path / "out" / "a"
    assert sorted(path.name for path in out.iterdir()) == ["progress-4-0.pt", "progress-4-75.pt", "progress.pt"]
    said: list[str] = []
    separate_mapped(file, out, AlternatingProjections(), say=said.append)
    assert said[0] == "a: resuming after 4 passes"
    assert relative_error(low_rank_of(out), problem(151, 120).truth) < 2e-6
    assert sorted(path.name for path in out.iterdir()) == ["corruption.npy", "recovered.npy", "result.json"]


@pytest.mark.slow
def test_an_interruption_is_resumed_with_the_same_bits(
    whole: tuple[Path, str, str],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    interrupt = "os.kill(os.getppid(), signal.SIGINT)"
    wait = "while not signal.getsignal(signal.SIGINT).__self__.reason: time.sleep(0.01)"
    with monkeypatch.context() as patch:
        act_in_pass_5(patch, tmp_path, f"{interrupt}\n        {wait}")
        assert main(command(file)) == 130
    err = capfd.readouterr().err
    assert "Stopping after this pass (repeat to stop at once)" in err
    assert err.endswith(
        "a.npy: pass 5, rank 3, 5.2 % outliers, residual 0.059\nStopped; the same command resumes\n"
    ) or (err.endswith("Stopped; the same command resumes\n"))
    assert main(command(file)) == 0
    assert "a: resuming after 5 passes" in capfd.readouterr().err
    for name in ("recovered.npy", "corruption.npy"):
        assert (tmp_path / "out" / "a" / name).read_bytes() == (whole[0] / "a" / name).read_bytes()


@pytest.mark.slow
def test_rejection_is_reported_once_and_other_files_are_separated(
    whole: tuple[Path, str, str], file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(120, 100)))
    both = command(tmp_path / "noise.npy")
    both[2:2] = [str(file)]
    assert main(both) == 2
    err = capfd.readouterr().err
    assert err.count("error: ") == err.count("noise.npy: alternating projections are not confirmed") == 1
    assert [path.name for path in (tmp_path / "out" / "noise").iterdir()] == [REJECTED]
    assert (tmp_path / "out" / "a" / "recovered.npy").read_bytes() == (whole[0] / "a" / "recovered.npy").read_bytes()
    assert main(both) == 2
    err = capfd.readouterr().err
    assert err.count("noise.npy: alternating projections were not confirmed in an earlier run, after ") == 1
    assert err.count("use --devices 1 and raise --max-memory") == 1
    assert "a.npy: already separated" in err
    assert "pass 1" not in err


@pytest.mark.slow
def test_each_process_reads_its_rows_of_a_stored_array(
    whole: tuple[Path, str, str], file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = np.load(file)
    stored = store(tmp_path / "b.h5", given, "x/matrix", chunks=(10, 120))
    store(stored, given[:5], "other")
    assert main(command(stored)) == 2
    assert "contains several matrices; choose one" in capfd.readouterr().err
    chosen = command(stored)
    chosen[1] += "::/x/matrix"
    chosen[2:2] = [str(store(tmp_path / "c.zarr", given, chunks=(16, 50)))]
    assert main(chosen) == 0
    for name in ("b-x-matrix", "c"):
        for part in ("recovered.npy", "corruption.npy"):
            assert (tmp_path / "out" / name / part).read_bytes() == (whole[0] / "a" / part).read_bytes()


@pytest.mark.slow
def test_the_first_process_copies_a_table(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = np.load(file).astype(np.float64)
    header = ",".join(["number", *(f"c{k}" for k in range(120))])
    rows = np.column_stack([np.arange(151), given])
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", fmt="%.17g", header=header, comments="")
    table = [*command(tmp_path / "t.csv"), "--index", "number"]
    with monkeypatch.context() as patch:
        act_in_pass_5(patch, tmp_path, "raise OSError(5, 'cannot read')")
        assert main(table) == 2
    assert capfd.readouterr().err.count("t.csv: copying the table to") == 1
    names = sorted(path.name for path in (tmp_path / "out" / "t").iterdir())
    assert names[0].startswith("observation-")
    assert names[1:] == ["progress-4-0.pt", "progress-4-75.pt", "progress.pt"]
    assert main(table) == 0
    err = capfd.readouterr().err
    assert "copying" not in err
    assert "t: resuming after 4 passes" in err
    assert relative_error(low_rank_of(tmp_path / "out" / "t"), problem(151, 120).truth) < 2e-6
    assert sorted(path.name for path in (tmp_path / "out" / "t").iterdir()) == [
        "corruption.npy",
        "recovered.npy",
        "result.json",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "8"], "distributed over at most 7 processes, with at least 16 rows each, got 8 processes"),
        (["--devices", "0"], "devices must be a whole number of at least 1, got 0"),
        (["--devices", "2", "--method", "dop"], "--devices must be 1 for any method but projections, got 2"),
        (["--devices", "2", "--grey"], "--grey does not apply to matrices that are spread over processes"),
        (["--devices", "2", "--device", "tpu"], "device must be"),
    ],
)
def test_matrices_that_cannot_be_distributed_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.ones((121, 100)))
    assert main(["separate", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


def test_other_files_and_other_numbers_of_processes_are_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", np.ones((121, 100)))
    assert main(command(tmp_path / "a.npz")) == 2
    assert "--devices must be 1 for data other than tables and matrices in .npy, " in capsys.readouterr().err
    assert main(command(tmp_path / "no.npy")) == 2
    assert "no.npy" in capsys.readouterr().err
    launched = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert main(command(file)) == 2
    assert "--devices must be 3, the number of processes started, got 2" in capsys.readouterr().err
