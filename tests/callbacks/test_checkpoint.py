"""Checkpoint folders: replaced as a whole, read safely, refused by name where damaged."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning.callbacks import CheckpointFolder, FolderCheckpointIO, last_checkpoint
from dop_lightning.callbacks.checkpoint import LAST

IO = FolderCheckpointIO()


def content(value: float) -> dict[str, Any]:
    problems = {name: {"x": torch.full((3,), value), "iteration": 7} for name in ("a", "noise-0.1-seed0")}
    return {"problems": problems, "global_step": int(value)}


def assert_holds(path: Path, value: float) -> None:
    found = IO.load_checkpoint(path)
    assert found["global_step"] == value
    assert list(found["problems"]) == ["a", "noise-0.1-seed0"]
    for problem in found["problems"].values():
        assert torch.equal(problem["x"], torch.full((3,), value))
        assert problem["iteration"] == 7


def beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


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


def test_a_folder_with_a_file_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.ckpt"
    IO.save_checkpoint(content(1), path)
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert files == ["problems/a.pt", "problems/noise-0.1-seed0.pt", "run.pt"]
    assert_holds(path, 1)


def test_a_new_one_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint({**content(1), "problems": {**content(1)["problems"], "gone": {}}}, path)
    IO.save_checkpoint(content(2), path)
    assert_holds(path, 2)
    assert beside(path) == ["last.ckpt"]


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_failing_write_leaves_the_old_one(fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(content(1), path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", Disk(fails_at))
        with pytest.raises(OSError, match="no space left"):
            IO.save_checkpoint(content(2), path)
    assert_holds(path, 1)
    assert beside(path) == ["last.ckpt"]
    IO.save_checkpoint(content(3), path)
    assert_holds(path, 3)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_crash_between_any_two_renames_leaves_a_whole_one(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / LAST
    IO.save_checkpoint(content(1), path)
    rename, done = Path.rename, []

    def crash(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            IO.save_checkpoint(content(2), path)
    assert last_checkpoint(tmp_path) == path
    assert_holds(path, 1)
    IO.save_checkpoint(content(3), path)
    assert_holds(path, 3)
    assert beside(path) == ["last.ckpt"]


def test_what_a_crash_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / LAST
    (path.with_name("last.ckpt.new") / "problems").mkdir(parents=True)
    (path.with_name("last.ckpt.new") / "problems" / "a.pt").write_bytes(b"half of")
    assert last_checkpoint(tmp_path) is None
    IO.save_checkpoint(content(1), path)
    assert_holds(path, 1)
    assert beside(path) == ["last.ckpt"]


def test_a_run_goes_on_from_the_previous_one(fit, matrix_method, matrices, tmp_path: Path) -> None:
    part = fit(tmp_path, matrix_method(), matrices(), 200)
    part.checkpoint.rename(part.checkpoint.with_name("last.ckpt.previous"))
    run = fit(tmp_path, matrix_method(), matrices(), 400, resume=True)
    run.assert_equals(fit(tmp_path / "once", matrix_method(), matrices(), 400))
    assert beside(run.checkpoint) == ["last.ckpt"]


@pytest.mark.parametrize("file", ["run.pt", "problems/a.pt"])
@pytest.mark.parametrize("keep", [0, 100])
def test_a_truncated_file_is_refused_by_name(file: str, keep: int, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(content(1), path)
    damaged = path / file
    damaged.write_bytes(damaged.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged, or not a checkpoint written by dop") as error:
        IO.load_checkpoint(path)
    assert str(error.value).startswith(f"{damaged}:")
    assert "\n" not in str(error.value)


class Stranger:
    """Something that a pickle could run."""


def test_nothing_but_tensors_and_plain_values_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint(content(1), path)
    torch.save({"x": Stranger()}, path / "problems" / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: damaged"):
        IO.load_checkpoint(path)


def test_a_checkpoint_of_a_run_is_plain(fit, image_method, images, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(), images(), 10)
    for file in run.checkpoint.rglob("*.pt"):
        assert torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", ["nothing", "file", "folder"])
def test_another_thing_is_no_checkpoint(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    if kind == "file":
        torch.save({}, path)
    if kind == "folder":
        path.mkdir()
    with pytest.raises(ValueError, match=r"last\.ckpt: not a checkpoint folder written by dop"):
        IO.load_checkpoint(path)


def test_removing(tmp_path: Path) -> None:
    path = tmp_path / LAST
    IO.save_checkpoint(content(1), path)
    IO.remove_checkpoint(path)
    IO.remove_checkpoint(path)
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


def test_a_checkpoint_taken_on_the_way_is_as_good(make_trainer, fit, matrix_method, matrices, tmp_path: Path) -> None:
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
