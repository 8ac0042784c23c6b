import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from dop_lightning.foundation.atomic import (
    atomic_json,
    atomic_text,
    recorded_checksums,
    remove_temporary,
    replacing,
    write_atomically,
    write_batch,
    written_together,
)
from dop_lightning.foundation.checksums import checksum


def half(file: BinaryIO) -> None:
    file.write(b"half of it")
    file.flush()
    raise RuntimeError("the disk is full")


def interrupted(file: BinaryIO) -> None:
    file.write(b"half of it")
    raise KeyboardInterrupt


class TestWriteAtomically:
    @pytest.mark.parametrize("streamed", [False, True])
    def test_creates_missing_folders_and_no_other_files(self, tmp_path: Path, streamed: bool) -> None:
        path = tmp_path / "a" / "b" / "c.bin"
        write_atomically(path, lambda file: file.write(b"all of it"), streamed=streamed)
        assert path.read_bytes() == b"all of it"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize(("write", "error"), [(half, RuntimeError), (interrupted, KeyboardInterrupt)])
    @pytest.mark.parametrize("old", [b"old", None])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_interrupted_write_keeps_the_old_content(
        self, tmp_path: Path, write: object, error: type[BaseException], old: bytes | None, streamed: bool
    ) -> None:
        path = tmp_path / "a.bin"
        if old is not None:
            path.write_bytes(old)
        with pytest.raises(error):
            write_atomically(path, write, streamed=streamed)  # type: ignore[arg-type]
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == ([] if old is None else [("a.bin", old)])

    def test_old_content_is_visible_until_the_write_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        atomic_text(path, "old")

        def write(file: BinaryIO) -> None:
            file.write(b"new")
            file.flush()
            assert path.read_text() == "old"

        write_atomically(path, write)
        assert path.read_text() == "new"

    def test_leaves_no_temporary_file_if_the_target_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            atomic_text(tmp_path / "folder", "text")
        assert [p.name for p in tmp_path.iterdir()] == ["folder"]

    @pytest.mark.skipif(os.name != "posix", reason="modes of files")
    def test_has_the_permissions_of_a_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        atomic_text(tmp_path / "atomic", "")
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
        assert len(modes) == 1


def test_text_keeps_line_endings_and_characters(tmp_path: Path) -> None:
    atomic_text(tmp_path / "a.txt", "α\r\nβ\n")
    assert (tmp_path / "a.txt").read_bytes() == "α\r\nβ\n".encode()


class TestJson:
    def test_json_round_trip(self, tmp_path: Path) -> None:
        value = {"name": "α", "psnr": 31.6, "ssim": None, "list": [1, True]}
        atomic_json(tmp_path / "a.json", value)
        text = (tmp_path / "a.json").read_text(encoding="utf-8")
        assert json.loads(text) == value
        assert text.endswith("}\n")
        assert "α" in text

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_nonfinite_numbers(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ValueError, match=r"a\.json: numbers must be finite"):
            atomic_json(tmp_path / "a.json", {"psnr": value})
        assert list(tmp_path.iterdir()) == []

    def test_refuses_objects(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError):
            atomic_json(tmp_path / "a.json", {"path": tmp_path})
        assert list(tmp_path.iterdir()) == []


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write_two(folder: Path, error: BaseException | None = None) -> None:
    with written_together():
        atomic_text(folder / "a", "new")
        atomic_text(folder / "b", "new")
        if error is not None:
            raise error


class TestWrittenTogether:
    def test_files_are_renamed_at_the_end(self, tmp_path: Path) -> None:
        atomic_text(tmp_path / "a", "old")
        with written_together():
            atomic_text(tmp_path / "a", "new")
            atomic_text(tmp_path / "b", "new")
            assert (tmp_path / "a").read_text() == "old"
            assert not (tmp_path / "b").exists()
        assert contents(tmp_path) == {"a": "new", "b": "new"}

    def test_files_are_renamed_in_the_order_of_writing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        replaced = []
        replace = Path.replace

        def record(temporary: Path, path: Path) -> Path:
            replaced.append(path.name)
            return replace(temporary, path)

        monkeypatch.setattr(Path, "replace", record)
        names = [str(k) for k in range(20)]
        with written_together():
            for name in names:
                atomic_text(tmp_path / name, name)
        assert replaced == names

    def test_no_file_is_replaced_before_all_are_flushed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        events = []
        fsync, replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), events.append("on the disk"))[0])
        monkeypatch.setattr(Path, "replace", lambda *paths: (events.append("replaced"), replace(*paths))[1])
        with written_together(), recorded_checksums() as found:
            for name, streamed in zip("abc", (False, True, True), strict=True):
                write_atomically(tmp_path / name, lambda file: file.write(b"x"), streamed=streamed)
        assert set(found.values()) == {checksum(b"x")}
        assert events == ["on the disk"] * 3 + ["replaced"] * 3

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_failed_block_leaves_no_files(self, tmp_path: Path, error: type[BaseException]) -> None:
        atomic_text(tmp_path / "a", "old")
        with pytest.raises(error):
            write_two(tmp_path, error())
        assert contents(tmp_path) == {"a": "old"}

    def test_one_failed_file_prevents_all_renames(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        atomic_text(tmp_path / "a", "old")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            write_two(tmp_path)
        assert contents(tmp_path) == {"a": "old"}

    def test_a_block_inside_of_another_ends_with_it(self, tmp_path: Path) -> None:
        with written_together():
            with written_together():
                atomic_text(tmp_path / "a", "new")
            assert not (tmp_path / "a").exists()
        assert contents(tmp_path) == {"a": "new"}

    def test_nondurable_file_is_not_flushed(self, tmp_path: Path) -> None:
        with written_together():
            write_atomically(tmp_path / "a", lambda file: file.write(b"new"), durable=False)
            assert (tmp_path / "a").read_text() == "new"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_works_in_a_fork(self, tmp_path: Path) -> None:
        with written_together():
            atomic_text(tmp_path / "a", "parent")
        child = os.fork()
        if child == 0:
            with written_together():
                atomic_text(tmp_path / "b", "child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert contents(tmp_path) == {"a": "parent", "b": "child"}


def test_a_batch_of_files_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_batch({tmp_path / "new" / f"{k}.bin": bytes([k]) for k in range(3)})
    assert [(tmp_path / "new" / f"{k}.bin").read_bytes() for k in range(3)] == [b"\0", b"\1", b"\2"]
    (tmp_path / "old.bin").write_bytes(b"old")
    with pytest.raises(OSError, match=r"file"):
        write_batch({tmp_path / "old.bin": b"x", tmp_path / "old.bin" / "file": b"y"})
    assert (tmp_path / "old.bin").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old.bin"]
    write_batch({})


@pytest.mark.parametrize("fails", ["open", "replace"])
def test_an_error_names_the_file_and_no_temporary_one(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, fails, refuse)

    def stream(path: Path, write: Callable[[BinaryIO], object]) -> None:
        with replacing(path) as temporary, temporary.open("xb") as file:
            write(file)

    for write in (write_atomically, stream):
        with pytest.raises(PermissionError) as caught:
            write(tmp_path / "a.csv", lambda file: file.write(b"1"))
        assert caught.value.filename == str(tmp_path / "a.csv")


def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / ".0123.tmp").mkdir(parents=True)
    (tmp_path / "a" / ".0123.tmp" / "part").touch()
    kept = [tmp_path / "a" / "b.tmp", tmp_path / ".c"]
    for path in (tmp_path / ".4567.tmp", tmp_path / "a" / ".89.tmp", *kept):
        path.touch()
    remove_temporary(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not (tmp_path / "a" / ".0123.tmp").exists()
    remove_temporary(tmp_path / "missing")
