"""Progress for other programs: a JSON object in the file that ``DOP_PROGRESS`` names."""

import json
from pathlib import Path

import pytest

from dop_lightning.lightning.callbacks.progress_file import ProgressFile


def test_run_writes_its_progress(fit, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOP_PROGRESS", str(tmp_path / "progress.json"))
    written: list[dict] = []
    real = ProgressFile.write

    def write(self: ProgressFile, *numbers: float) -> None:
        real(self, *numbers)
        written.append(json.loads((tmp_path / "progress.json").read_text()))

    monkeypatch.setattr(ProgressFile, "write", write)
    monkeypatch.setattr("dop_lightning.lightning.callbacks.progress_file.PAUSE", 0.0)
    fit(tmp_path / "run", matrix_method(block=10), matrices(), 50)
    assert [each["maximum"] for each in written] == [50] * len(written)
    done = [each["done"] for each in written]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 50)
    assert written[-1]["seconds_left"] == 0
    assert len(set(done)) >= 5


def test_progress_file_is_replaced_periodically(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    file = ProgressFile(path)
    file.write(1.5, 10, None)
    file.write(2.0, 10, 3.0)  # at once
    assert json.loads(path.read_text()) == {"done": 1.5, "maximum": 10, "seconds_left": None}
    file.write(10, 10, 0.0)  # the end
    assert json.loads(path.read_text())["done"] == 10


def test_no_progress_file_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOP_PROGRESS", raising=False)
    assert ProgressFile.of_environment() is None


def test_unwritable_progress_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ProgressFile(tmp_path / "file" / "progress.json").write(1, 2, None)
    assert (tmp_path / "file").read_text() == "not a folder"
