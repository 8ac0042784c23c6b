"""Checkpoint folders: one file per batch and its predecessor, loaded safely; damaged files are named."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning.lightning import checkpoint_io
from dop_lightning.lightning.callbacks import CheckpointFolder, FolderCheckpointIO, last_checkpoint
from dop_lightning.lightning.callbacks.checkpoint import LAST

BATCHES = {"batch-0000": ("a", "b"), "batch-0001": ("noise-0.1-seed0",)}


def entry(value: float) -> dict[str, Any]:
    stage = {"status": "running", "iteration": int(value), "evaluated": 0, "ended": False, "seconds": 0.5}
    return {**stage, "x": torch.full((3,), value)}


def content(value: float) -> dict[str, Any]:
    return {"batches": {batch: {name: entry(value) for name in names} for batch, names in BATCHES.items()}}


def values(path: Path, io: FolderCheckpointIO | None = None) -> dict[str, float]:
    """What is found of each problem; all of its entries are the same."""
    found = (io or FolderCheckpointIO()).load_checkpoint(path)["problems"]
    assert all(torch.equal(saved["x"], torch.full((3,), float(saved["iteration"]))) for saved in found.values())
    return {name: saved["iteration"] for name, saved in found.items()}


def save(value: float, path: Path) -> None:
    FolderCheckpointIO().save_checkpoint(content(value), path)


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


class Disk:
    """A disk on which the n-th file cannot be written."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at
        self.save = torch.save

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if self.left == 0:
            raise OSError("no space left on device")
        self.left -= 1
        self.save(*args, **kwargs)


def test_folder_has_a_current_and_a_previous_file_per_batch(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.ckpt"
    save(1, path)
    assert files(path) == ["batch-0000.pt", "batch-0001.pt"]
    assert values(path) == {"a": 1, "b": 1, "noise-0.1-seed0": 1}
    save(2, path)
    save(3, path)
    assert files(path) == ["batch-0000.previous.pt", "batch-0000.pt", "batch-0001.previous.pt", "batch-0001.pt"]
    assert values(path) == {"a": 3, "b": 3, "noise-0.1-seed0": 3}
    for batch in BATCHES:
        (path / f"{batch}.pt").unlink()
    assert values(path) == {"a": 2, "b": 2, "noise-0.1-seed0": 2}


def test_unchanged_batches_are_not_rewritten(tmp_path: Path) -> None:
    path, io = tmp_path / "last.ckpt", FolderCheckpointIO()
    io.save_checkpoint(content(1), path)
    before = (path / "batch-0001.pt").stat().st_mtime_ns
    io.save_checkpoint({"batches": {**content(2)["batches"], "batch-0001": content(1)["batches"]["batch-0001"]}}, path)
    assert (path / "batch-0001.pt").stat().st_mtime_ns == before
    assert values(path) == {"a": 2, "b": 2, "noise-0.1-seed0": 1}
    (path / "batch-0001.pt").unlink()  # somebody has tidied up
    io.save_checkpoint(content(1), path)
    assert values(path)["noise-0.1-seed0"] == 1


def test_processes_share_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for value, batch in enumerate(BATCHES, start=1):
        FolderCheckpointIO().save_checkpoint({"batches": {batch: content(value)["batches"][batch]}}, path)
    assert values(path) == {"a": 1, "b": 1, "noise-0.1-seed0": 2}
    assert values(path, FolderCheckpointIO(only=lambda: {"batch-0001"})) == {"noise-0.1-seed0": 2}


def test_later_batch_with_the_same_problem_is_used(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(5, path)
    FolderCheckpointIO().save_checkpoint({"batches": {"batch-0002": {"a": entry(4)}}}, path)
    assert values(path) == {"a": 4, "b": 5, "noise-0.1-seed0": 5}


@pytest.mark.parametrize("fails_at", [0, 1])
def test_failed_write_keeps_the_old_file(fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, io = tmp_path / "last.ckpt", FolderCheckpointIO()
    io.save_checkpoint(content(1), path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io, "WRITERS", 1)  # the files are written in order
        patch.setattr(torch, "save", Disk(fails_at))
        with pytest.raises(OSError, match="no space left"):
            io.save_checkpoint(content(2), path)
    assert set(values(path).values()) <= {1, 2}
    assert values(path)["noise-0.1-seed0"] == 1
    io.save_checkpoint(content(2), path)
    assert set(values(path).values()) == {2}


@pytest.mark.parametrize("renames", range(6))
def test_a_crash_between_any_two_renames_leaves_whole_batches(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / LAST
    save(1, path)
    replace, done = Path.replace, []

    def crash(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save(2, path)
    assert last_checkpoint(tmp_path) == path
    found = values(path)
    assert found["a"] == found["b"]  # they are in one batch
    assert set(found.values()) <= {1, 2}
    save(3, path)
    assert set(values(path).values()) == {3}
    assert not [name for name in files(path) if not name.endswith(".pt")]


def test_leftovers_of_a_crash_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / LAST
    path.mkdir(parents=True)
    (path / "batch-0000.new").write_bytes(b"half of")
    assert last_checkpoint(tmp_path) is None
    save(1, path)
    assert set(values(path).values()) == {1}


def test_run_resumes_from_the_previous_file(fit, matrix_method, matrices, tmp_path: Path) -> None:
    fit(tmp_path, matrix_method(), matrices(), 200)
    part = fit(tmp_path, matrix_method(), matrices(), 300, resume=True)
    (part.checkpoint / "batch-0000.pt").unlink()
    run = fit(tmp_path, matrix_method(), matrices(), 400, resume=True)
    run.assert_equals(fit(tmp_path / "once", matrix_method(), matrices(), 400))


def test_truncated_file_is_refused_and_the_previous_one_used(tmp_path: Path, capsys) -> None:
    path = tmp_path / "last.ckpt"
    save(1, path)
    save(2, path)
    damaged = path / "batch-0000.pt"
    whole = damaged.read_bytes()
    for k in range(100):
        damaged.write_bytes(whole[: len(whole) * k // 100])
        capsys.readouterr()
        assert values(path) == {"a": 1, "b": 1, "noise-0.1-seed0": 2}
        said = capsys.readouterr().err
        assert re.fullmatch(f"{re.escape(str(damaged))}: damaged.*: resuming from the previous file\n", said)


def test_flipped_bit_is_detected_or_harmless(tmp_path: Path, capsys) -> None:
    path, draws, noticed = tmp_path / "last.ckpt", random.Random(0), 0
    save(1, path)
    save(2, path)
    damaged = path / "batch-0000.pt"
    whole = damaged.read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        content[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        damaged.write_bytes(content)
        found, said = values(path), capsys.readouterr().err
        assert found == ({"a": 1, "b": 1, "noise-0.1-seed0": 2} if said else dict.fromkeys(found, 2))
        noticed += f"{damaged}: damaged" in said
    assert noticed > 20


@pytest.mark.parametrize("key", ["run", "time", "problems", "evaluated"])
def test_file_without_a_key_is_refused(key: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "last.ckpt"
    save(1, path)
    save(2, path)
    file = path / "batch-0001.pt"
    whole = torch.load(file, weights_only=True)
    whole.pop("checksum")
    for holder in (whole, *whole["problems"].values()):
        holder.pop(key, None)
    torch.save(whole, file)
    assert values(path)["noise-0.1-seed0"] == 1
    assert f"batch-0001.pt: incomplete checkpoint ('{key}'" in capsys.readouterr().err


def test_callbacks_are_read_from_either_of_two_files(tmp_path: Path, capsys) -> None:
    path, states = tmp_path / "last.ckpt", {"EarlyStopping": {"wait_count": 3}}
    FolderCheckpointIO().save_checkpoint({**content(1), "callbacks": states}, path)
    whole = (path / "callbacks").read_bytes()
    (path / "callbacks").write_bytes(whole[:-100])
    assert FolderCheckpointIO().load_checkpoint(path)["callbacks"] == states
    assert re.fullmatch(r"\S+callbacks: damaged.*: skipped\n", capsys.readouterr().err)
    torch.save(states, path / "callbacks")  # as earlier versions wrote it
    assert FolderCheckpointIO().load_checkpoint(path)["callbacks"] == states
    for name in ("callbacks", "callbacks.copy"):
        (path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"callbacks: damaged, and so is its copy; remove both"):
        FolderCheckpointIO().load_checkpoint(path)


def test_damaged_file_does_not_replace_the_good_one(tmp_path: Path) -> None:
    path, io = tmp_path / "last.ckpt", FolderCheckpointIO()
    save(1, path)
    save(2, path)
    (path / "batch-0000.pt").write_bytes(b"")
    values(path, io)
    io.save_checkpoint(content(3), path)
    (path / "batch-0000.pt").write_bytes(b"")
    assert values(path) == {"a": 1, "b": 1, "noise-0.1-seed0": 3}


def test_two_damaged_files_are_both_reported(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(1, path)
    (path / "batch-0001.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"batch-0001\.pt: damaged.*no previous file exists: remove it to restart"):
        values(path)
    (path / "batch-0001.previous.pt").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"batch-0001\.pt: damaged.*; batch-0001\.previous\.pt cannot be read either: remove both"
    ):
        values(path)
    (path / "batch-0001.pt").unlink()
    with pytest.raises(
        ValueError, match=r"previous\.pt: damaged.*no newer file exists: remove it to restart its problems"
    ):
        values(path)


def test_file_of_another_run_is_refused_and_the_previous_one_used(tmp_path: Path, capsys) -> None:
    path = tmp_path / "last.ckpt"
    for value, mark in ((1, "mine"), (2, "theirs")):
        FolderCheckpointIO(mark).save_checkpoint(content(value), path)
    assert set(values(path, FolderCheckpointIO("mine")).values()) == {1}
    said = capsys.readouterr().err
    assert "batch-0001.pt: belongs to another run, with other settings or data: resuming from" in said
    assert set(values(path, FolderCheckpointIO("theirs")).values()) == {2}
    assert set(values(path).values()) == {2}  # asked for by its path: the caller knows


class Stranger:
    """Something that a pickle could run."""


@pytest.mark.parametrize("foreign", [{"x": Stranger()}, {"state_dict": {}}, torch.zeros(3)])
def test_only_plain_values_are_loaded(foreign: object, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(1, path)
    torch.save(foreign, path / "batch-0000.pt")
    with pytest.raises(ValueError, match=r"batch-0000\.pt: damaged, or not a checkpoint written by dop") as error:
        values(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_a_run_is_plain(fit, image_method, images, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(), images(), 10)
    for file in run.checkpoint.rglob("*.pt"):
        assert torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", ["nothing", "file", "folder"])
def test_other_objects_are_not_checkpoints(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    if kind == "file":
        torch.save({}, path)
    if kind == "folder":
        path.mkdir()
    with pytest.raises(ValueError, match=r"last\.ckpt: not a checkpoint( folder)? written by dop"):
        values(path)


def test_removing(tmp_path: Path) -> None:
    path = tmp_path / LAST
    save(1, path)
    FolderCheckpointIO().remove_checkpoint(path)
    FolderCheckpointIO().remove_checkpoint(path)
    assert last_checkpoint(tmp_path) is None


class Counting(CheckpointFolder):
    """Remembers when it saved."""

    def save(self, trainer: Any) -> None:
        super().save(trainer)
        self.saved = [*getattr(self, "saved", []), trainer.global_step]


@pytest.mark.parametrize(("minutes", "saved"), [(1e-12, [100, 200, 250, 250]), (1e6, [250])])
def test_saves_every_few_minutes_and_at_the_end(
    minutes: float, saved: list[int], make_trainer, matrix_method, matrices, tmp_path: Path
) -> None:
    callback = Counting(minutes)
    trainer = make_trainer(tmp_path, 250)
    trainer.callbacks = [callback if isinstance(c, CheckpointFolder) else c for c in trainer.callbacks]
    trainer.fit(matrix_method(), datamodule=matrices())
    assert callback.saved == saved


def test_intermediate_checkpoint_is_equivalent(make_trainer, fit, matrix_method, matrices, tmp_path: Path) -> None:
    """A crash, unlike an interrupt, leaves the last checkpoint and nothing later."""

    class Crash(CheckpointFolder):
        def on_fit_end(self, *args: Any) -> None:
            raise RuntimeError("power cut")

    trainer = make_trainer(tmp_path, 250)
    trainer.callbacks = [Crash(1e-12) if isinstance(c, CheckpointFolder) else c for c in trainer.callbacks]
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(matrix_method(), datamodule=matrices())
    run = fit(tmp_path, matrix_method(), matrices(), 400, resume=True)
    at_once = fit(tmp_path / "once", matrix_method(), matrices(), 400)
    assert run.iterations == [400] * 3
    for name in run.table:
        assert (run.recovered(name) == at_once.recovered(name)).all()


def test_minutes_must_be_above_0() -> None:
    with pytest.raises(ValueError, match="every_minutes must be a finite number above 0, got 0"):
        CheckpointFolder(0)
