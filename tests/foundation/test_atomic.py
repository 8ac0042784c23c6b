import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from dop_lightning.foundation.atomic import atomic_json, atomic_text, write_atomically


def half(file: BinaryIO) -> None:
    file.write(b"half of it")
    file.flush()
    raise RuntimeError("the disk is full")


def interrupted(file: BinaryIO) -> None:
    file.write(b"half of it")
    raise KeyboardInterrupt


class TestWriteAtomically:
    def test_makes_missing_folders_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "c.bin"
        write_atomically(path, lambda file: file.write(b"all of it"))
        assert path.read_bytes() == b"all of it"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize(("write", "error"), [(half, RuntimeError), (interrupted, KeyboardInterrupt)])
    @pytest.mark.parametrize("old", [b"old", None])
    def test_keeps_the_old_content_where_writing_stops_half_way(
        self, tmp_path: Path, write: object, error: type[BaseException], old: bytes | None
    ) -> None:
        path = tmp_path / "a.bin"
        if old is not None:
            path.write_bytes(old)
        with pytest.raises(error):
            write_atomically(path, write)  # type: ignore[arg-type]
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == ([] if old is None else [("a.bin", old)])

    def test_shows_the_old_content_until_it_is_done(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        atomic_text(path, "old")

        def write(file: BinaryIO) -> None:
            file.write(b"new")
            file.flush()
            assert path.read_text() == "old"

        write_atomically(path, write)
        assert path.read_text() == "new"

    def test_leaves_no_temporary_file_where_the_target_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            atomic_text(tmp_path / "folder", "text")
        assert [p.name for p in tmp_path.iterdir()] == ["folder"]

    @pytest.mark.skipif(os.name != "posix", reason="modes of files")
    def test_gives_others_the_rights_of_any_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        atomic_text(tmp_path / "atomic", "")
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
        assert len(modes) == 1


def test_text_keeps_its_line_ends_and_signs(tmp_path: Path) -> None:
    atomic_text(tmp_path / "a.txt", "α\r\nβ\n")
    assert (tmp_path / "a.txt").read_bytes() == "α\r\nβ\n".encode()


class TestJson:
    def test_comes_back(self, tmp_path: Path) -> None:
        value = {"name": "α", "psnr": 31.6, "ssim": None, "list": [1, True]}
        atomic_json(tmp_path / "a.json", value)
        text = (tmp_path / "a.json").read_text(encoding="utf-8")
        assert json.loads(text) == value
        assert text.endswith("}\n")
        assert "α" in text

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_numbers_json_has_not(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ValueError, match=r"a\.json: values must be finite"):
            atomic_json(tmp_path / "a.json", {"psnr": value})
        assert list(tmp_path.iterdir()) == []

    def test_refuses_objects(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError):
            atomic_json(tmp_path / "a.json", {"path": tmp_path})
        assert list(tmp_path.iterdir()) == []
