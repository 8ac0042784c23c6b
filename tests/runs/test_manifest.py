"""Who may write into the folder of a run, and what is written there first."""

import json
import os
from pathlib import Path

import pytest
import torch

from dop_lightning.images.tiles import cut
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.folder import planned_batches
from dop_lightning.runs.manifest import claim, write_manifest

CONFIG = "model: {tau: 0.002}\n"


def problem(name: str = "a") -> Problem:
    return Problem(name, torch.ones(2, 2), seed=4, attributes={"n": 2, "noise": "gross_outliers"})


def test_a_folder_is_free_until_a_run_is_written_there(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "down"
    assert claim(run, "mark") is False
    assert not run.exists()  # a look changes nothing
    write_manifest(run, "mark", CONFIG, [problem()])
    assert claim(run, "mark") is True


def test_a_folder_with_other_files_is_free(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path, "mark") is False


def test_another_run_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, "mark", CONFIG, [problem()])
    with pytest.raises(ValueError, match="holds another run") as error:
        claim(tmp_path, "other")
    assert str(tmp_path / "config.yaml") in str(error.value)
    assert (tmp_path / "config.yaml").read_text() == CONFIG


@pytest.mark.parametrize("text", ["", "{", "[]", '{"problems": []}'])
def test_a_damaged_manifest_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest written by dop"):
        claim(tmp_path, "mark")


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (None, "was written by an earlier version of dop_lightning (run files of version 1, this version writes 2); "),
        (1, "was written by an earlier version of dop_lightning (run files of version 1, this version writes 2); "),
        (3, "was written by a later version of dop_lightning (run files of version 3, this version reads up to 2); "),
    ],
)
def test_a_run_of_another_version_is_not_resumed(version: int | None, text: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, "mark", CONFIG, [problem()], batches=[["a"]])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["version"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | ({"version": version} if version else {})))
    for resume in (lambda: claim(tmp_path, "mark"), lambda: planned_batches(tmp_path)):
        with pytest.raises(ValueError, match="version") as error:
            resume()
        assert str(error.value).startswith(f"{tmp_path}: {text}")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="file: the folder of a run must be a folder, got a file"):
        claim(file, "mark")
    with pytest.raises(ValueError, match=r"cannot be written, .*file is not a folder"):
        claim(file / "below", "mark")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ValueError, match=r"run: cannot be written, .* is not a folder that you may write to"):
        claim(tmp_path / "run", "mark")


def test_a_start_that_was_cut_off_can_be_repeated(tmp_path: Path) -> None:
    write_manifest(tmp_path, "mark", CONFIG, [problem()])
    (tmp_path / "config.yaml").unlink()
    assert claim(tmp_path, "mark")


def test_the_manifest_lists_the_problems(tmp_path: Path) -> None:
    assert planned_batches(tmp_path) is None
    write_manifest(tmp_path, "mark", CONFIG, [problem("a"), problem("b")], batches=[["b"], ["a"]])
    assert planned_batches(tmp_path) == [["b"], ["a"]]
    assert (tmp_path / "config.yaml").read_text() == CONFIG
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    attributes = {"n": 2, "noise": "gross_outliers"}
    assert manifest == {
        "version": 2,
        "fingerprint": "mark",
        "problems": [{"name": name, "seed": 4, "shape": [2, 2], "attributes": attributes} for name in "ab"],
        "batches": [["b"], ["a"]],
    }


def test_the_manifest_lists_tiles_with_their_image(tmp_path: Path) -> None:
    image = Problem("photo", torch.rand(1, 9, 20), data_range=1.0)
    mosaic = cut(image, 8, 0)
    assert mosaic is not None
    write_manifest(tmp_path, "mark", CONFIG, [image, problem()], {"photo": mosaic})
    photo, other = json.loads((tmp_path / "manifest.json").read_text())["problems"]
    assert photo["name"] == "photo"
    assert photo["tiles"] == [f"photo-r{i}-c{j}" for i in range(2) for j in range(3)]
    assert "tiles" not in other
