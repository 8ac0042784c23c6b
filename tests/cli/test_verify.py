"""``dop verify``: damaged files, how a resumed run handles them, and that it does."""

import os
import shutil
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from tests.cli.test_run_versions import FIT
from tests.engine.projections.builders import problem


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    if file.suffix == ".pt":  # half of its bytes have no effect
        content = content[: len(content) // 2]
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def run(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two checkpoints."""
    monkeypatch.chdir(tmp_path)
    assert dop(*FIT, "run", "--trainer.max_steps", "20").status == 0
    assert dop(*FIT, "run", "--trainer.max_steps", "40").status == 0
    return Path("run")


def test_batch_without_a_checkpoint_restarts_with_a_message(run: Path, dop) -> None:
    folder = run / "checkpoints" / "last.ckpt"
    for file in folder.glob("batch-0000.*"):
        file.unlink()
    said = dop(*FIT, "run", "--trainer.max_steps", "40")
    assert said.status == 0
    assert f"{folder}: batch-0000 has no checkpoint, restarting from the beginning\n" in said.err
    assert "no checkpoint" not in dop(*FIT, "run", "--trainer.max_steps", "50").err


CONTINUED = [
    ("config.yaml", "resuming the run restores it from its copy"),
    ("manifest.json", "resuming the run restores it from its copy"),
    ("results.csv", "dop table rebuilds it"),
    ("metrics.csv", "resuming the run rewrites it"),
    ("checkpoints/curves/batch-0000.csv", "resuming the run repairs it from metrics.csv"),
    ("checkpoints/last.ckpt/batch-0000.pt", "a resumed run continues from batch-0000.previous.pt"),
    ("checkpoints/last.ckpt/batch-0000.previous.pt", "the next checkpoint replaces it"),
    ("*/result.json", "resuming the run rewrites it"),
    ("*/recovered.npy", "resuming the run rewrites it"),
    ("*/recovered.png", "resuming the run rewrites it"),
]


def test_damaged_files_are_reported_and_repaired(run: Path, dop) -> None:
    said = dop("verify", "run")
    assert (said.status, said.out) == (0, "run: all files are intact\n"), said
    shutil.copytree(run, "once")
    for pattern, then in CONTINUED:
        file = next(run.glob(pattern))
        flip(file)
        said = dop("verify", "run")
        assert said.status == 1, pattern
        assert said.out.startswith(f"{file}: ")
        assert then in said.out
        assert said.out.count("\n") == 1
        (file.parent / ".0123456789abcdef.tmp").touch()  # of a process that was killed
        said = dop(*FIT, "run", "--trainer.max_steps", "40")
        assert said.status == 0, said.err
        assert not list(run.rglob("*.tmp"))
        if not pattern.endswith("previous.pt"):
            assert dop("verify", "run").status == 0, pattern
        for name in ("metrics.csv", f"{next(run.glob('*/recovered.npy')).relative_to(run)}"):
            assert (run / name).read_bytes() == Path("once", name).read_bytes(), pattern
        shutil.rmtree(run)
        shutil.copytree("once", run)


def test_damaged_config_without_a_copy_is_rewritten(run: Path, dop) -> None:
    flip(run / "config.yaml")
    (run / "checkpoints" / "config.yaml").unlink()
    said = dop("verify", "run")
    assert said.status == 1
    assert "resuming the run rewrites it; passing it as --config is refused" in said.out
    assert dop("fit", "--config", "run/config.yaml").status == 2
    assert dop(*FIT, "run", "--trainer.max_steps", "40").status == 0
    assert dop("verify", "run").status == 0


def test_a_damaged_checkpoint_without_a_later_one(run: Path, dop) -> None:
    (run / "checkpoints/last.ckpt/batch-0000.pt").unlink()
    previous = run / "checkpoints/last.ckpt/batch-0000.previous.pt"
    previous.write_bytes(b"")
    then = "the run cannot be resumed until you remove it; its problems then start again"
    assert then in dop("verify", "run").out
    said = dop(*FIT, "run", "--trainer.max_steps", "40")
    assert (said.status, f"{previous}: damaged" in said.err, "remove it to restart" in said.err) == (2, True, True)
    previous.unlink()
    assert dop(*FIT, "run", "--trainer.max_steps", "40").status == 0
    assert dop("verify", "run").status == 0


def test_checkpoint_files_of_other_programs_are_not_read(run: Path, dop) -> None:
    torch.save({"path": PurePosixPath("x")}, run / "own.ckpt")
    said = dop("verify", "run")
    assert (said.status, said.out) == (0, "run: all files are intact\n"), said


def test_a_damaged_config_is_refused_as_settings(run: Path, dop) -> None:
    flip(run / "config.yaml")
    said = dop("fit", "--config", "run/config.yaml")
    assert said.status == 2
    assert "run/config.yaml: damaged or edited, the checksum differs; restore it from run/checkpoints/" in said.err


def test_matrices_read_in_pieces_have_no_config(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", problem().observation.numpy())
    separate = ("separate", "X.npy", "--max-memory", "1K", "--out", "out")
    assert dop(*separate).status == 0
    said = dop("verify", "out")
    assert (said.status, said.out) == (0, "out: all files are intact\n"), said
    for name, then in (
        ("manifest.json", "resuming the run restores it from its copy"),
        ("X/result.json", "resuming the run rewrites it"),
        ("X/recovered.npy", "resuming the run rewrites it"),
    ):
        flip(Path("out", name))
        said = dop("verify", "out")
        assert (said.status, said.out.count("\n")) == (1, 1), said
        assert said.out.startswith(f"out/{name}: ")
        assert then in said.out
        assert dop(*separate).status == 0
        assert dop("verify", "out").status == 0, name


def test_the_manifest_of_matrices_read_in_pieces(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy is restored; if it is missing, nothing is forgotten; two starts do not work in one folder."""
    monkeypatch.chdir(tmp_path)
    for k in range(2):
        np.save(f"X{k}.npy", problem(seed=k).observation.numpy())
    separate = ("separate", "--max-memory", "1K", "--out", "out")
    assert dop(*separate, "X0.npy", "X1.npy").status == 0
    manifest, copy = Path("out/manifest.json"), Path("out/checkpoints/manifest.json")
    copy.write_bytes(b"")
    Path("out", ".0123456789abcdef.tmp").touch()  # of a process that was killed
    assert dop(*separate, "X1.npy").status == 0
    assert copy.read_bytes() == manifest.read_bytes()
    assert not list(Path("out").rglob("*.tmp"))
    manifest.unlink()
    said = dop(*separate, "X1.npy")
    assert said.status == 2
    assert f"{manifest}: missing; restore it from {copy}" in said.err
    shutil.copy(copy, manifest)
    lock = os.open("out", os.O_RDONLY)
    fcntl = pytest.importorskip("fcntl")
    fcntl.flock(lock, fcntl.LOCK_EX)
    said = dop(*separate, "X1.npy")
    os.close(lock)
    assert said.status == 2
    assert "out: another process is using this folder" in said.err


def test_a_folder_without_runs_is_refused(dop, tmp_path: Path) -> None:
    said = dop("verify", str(tmp_path))
    assert said.status == 2
    assert "contains no run" in said.err
