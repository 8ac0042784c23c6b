"""Who may write into the folder of a run, and what is written there first."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dop_lightning.foundation.checksums import without_checksum
from dop_lightning.images.tiles import cut
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.copies import copy_of, require_unchanged
from dop_lightning.runs.folder import RunFolder, planned_batches
from dop_lightning.runs.manifest import claim, write_manifest
from dop_lightning.runs.request import RunRequest
from dop_lightning.runs.verification import verify_run
from tests.foundation.test_folder_lock import HOLDS

CONFIG = "model: {tau: 0.002}\n"


def problem(name: str = "a") -> Problem:
    return Problem(name, torch.ones(2, 2), seed=4, attributes={"n": 2, "noise": "gross_outliers"})


def request(*problems: Problem, tau: float = 0.002, mosaics: dict | None = None) -> RunRequest:
    return RunRequest({"model": {"tau": tau}}, problems or (problem(),), mosaics or {})


def test_a_folder_is_free_until_a_run_is_written_there(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "down"
    assert claim(run, request()) is None
    assert not run.exists()  # a look changes nothing
    write_manifest(run, request(), CONFIG)
    known = claim(run, request())
    assert known is not None
    assert known.fingerprint == request().fingerprint


@pytest.mark.parametrize("threads", [3, None])
def test_threads_of_a_run_are_recorded(threads: int | None, tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG, threads=threads)
    known = claim(tmp_path, request())
    assert known is not None
    assert known.threads == threads
    assert ("threads" in json.loads((tmp_path / "manifest.json").read_text())) is (threads is not None)


def test_a_folder_with_other_files_is_free(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path, request()) is None


def test_another_run_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG)
    with pytest.raises(ValueError, match=r"holds another run \(model.tau: 0.002 in the run, 0.1 given\)"):
        claim(tmp_path, request(tau=0.1))
    assert RunFolder(tmp_path).config_text() == CONFIG


NO_MARKS = '{"version": 3, "fingerprint": "x", "settings": "y", "problems": [{"name": "a"}], "batches": [["a"]]}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"problems": []}', NO_MARKS])
def test_a_damaged_manifest_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest written by dop"):
        claim(tmp_path, request())


EARLIER = "was written by an earlier version of dop_lightning (run files of version 1, this version resumes 2 to 3); "
LATER = "was written by a later version of dop_lightning (run files of version 4, this version reads up to 3); "


@pytest.mark.parametrize(("version", "text"), [(None, EARLIER), (1, EARLIER), (4, LATER)])
def test_a_run_of_another_version_is_not_resumed(version: int | None, text: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG, batches=[["a"]])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["version"], manifest["checksum"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | ({"version": version} if version else {})))
    for resume in (lambda: claim(tmp_path, request()), lambda: planned_batches(tmp_path)):
        with pytest.raises(ValueError, match="version") as error:
            resume()
        assert str(error.value).startswith(f"{tmp_path}: {text}")


def test_file_is_not_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="file: the folder of a run must be a folder, got a file"):
        claim(file, request())
    with pytest.raises(ValueError, match=r"cannot be written, .*file is not a folder"):
        claim(file / "below", request())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ValueError, match=r"run: cannot be written, .* is not a folder that you may write to"):
        claim(tmp_path / "run", request())


def test_interrupted_start_can_be_repeated(tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG)
    (tmp_path / "config.yaml").unlink()
    assert claim(tmp_path, request())
    with pytest.raises(ValueError, match=r"holds another run \(model.tau: 0.002 in the run, 0.1 given\)"):
        claim(tmp_path, request(tau=0.1))


@pytest.mark.parametrize("renames", range(5))
def test_start_killed_between_two_renames_keeps_its_settings(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, done = Path.replace, []

    def crash(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "replace", crash)
        write_manifest(tmp_path, request(), CONFIG)
    assert (claim(tmp_path, request()) is None) == (renames < 2)
    if renames >= 2:
        assert RunFolder(tmp_path).section("model") == {"tau": 0.002}


def test_the_manifest_lists_the_problems(tmp_path: Path) -> None:
    assert planned_batches(tmp_path) is None
    asked = request(problem("a"), problem("b"))
    write_manifest(tmp_path, asked, CONFIG, batches=[["b"], ["a"]])
    assert planned_batches(tmp_path) == [["b"], ["a"]]
    assert RunFolder(tmp_path).config_text() == CONFIG
    manifest = without_checksum(json.loads((tmp_path / "manifest.json").read_text()))
    same = {"seed": 4, "shape": [2, 2], "attributes": {"n": 2, "noise": "gross_outliers"}, "mark": asked.digests[0]}
    assert manifest == {
        "version": 3,
        "fingerprint": asked.fingerprint,
        "settings": asked.settings_digest,
        "problems": [{"name": name, **same, "rates": {"tau": 0.002, "alpha": None}} for name in "ab"],
        "batches": [["b"], ["a"]],
    }


def test_the_manifest_lists_tiles_with_their_image(tmp_path: Path) -> None:
    image = Problem("photo", torch.rand(1, 9, 20), data_range=1.0)
    mosaic = cut(image, 8, 0)
    assert mosaic is not None
    write_manifest(tmp_path, request(image, problem(), mosaics={"photo": mosaic}), CONFIG)
    photo, other = json.loads((tmp_path / "manifest.json").read_text())["problems"]
    assert photo["name"] == "photo"
    assert photo["tiles"] == [f"photo-r{i}-c{j}" for i in range(2) for j in range(3)]
    assert "tiles" not in other


def flip(path: Path) -> bytes:
    """Flip a bit in the middle of a file; return what it was."""
    before = path.read_bytes()
    content = bytearray(before)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return before


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_file_is_read_from_its_copy_and_repaired(name: str, cut: bool, tmp_path: Path, capsys) -> None:
    write_manifest(tmp_path, request(), CONFIG, batches=[["a"]])
    before, path = flip(tmp_path / name), tmp_path / name
    if cut:
        path.write_bytes(before[: len(before) // 2])
    folder = RunFolder(tmp_path)
    for _ in range(2):  # it is noted once
        assert folder.manifest().batches == [["a"]]
        assert folder.config_text() == CONFIG
        assert folder.section() == yaml.safe_load(CONFIG)
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: damaged")
    assert said.endswith(f"; reading its copy {copy_of(path)} instead\n")
    assert said.count("\n") == 1
    write_manifest(tmp_path, request(), CONFIG, batches=[["a"]])
    assert path.read_bytes() == copy_of(path).read_bytes() == before


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml"])
def test_damaged_copy_is_ignored(name: str, tmp_path: Path, capsys) -> None:
    write_manifest(tmp_path, request(), CONFIG, batches=[["a"]])
    flip(copy_of(tmp_path / name))
    assert RunFolder(tmp_path).manifest().batches == [["a"]]
    assert RunFolder(tmp_path).config_text() == CONFIG
    assert not capsys.readouterr().err
    flip(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: not a (manifest|config) written by dop \(.+\)"):
        (RunFolder(tmp_path).manifest(), RunFolder(tmp_path).config_text())


def test_damaged_manifest_without_copy_can_be_removed(tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG)
    (tmp_path / "config.yaml").unlink()
    copy_of(tmp_path / "manifest.json").unlink()
    flip(tmp_path / "manifest.json")
    with pytest.raises(ValueError, match=r"manifest\.json: not a .*; no problem had started: remove it to start again"):
        claim(tmp_path, request())
    assert "remove it to start again" in next(verify_run(tmp_path)).then
    (tmp_path / "manifest.json").unlink()
    assert claim(tmp_path, request()) is None


def test_damaged_or_edited_config_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG)
    path = tmp_path / "config.yaml"
    require_unchanged(path)
    path.write_text(CONFIG)  # without its checksum, and otherwise as it was
    require_unchanged(path)
    path.write_text(CONFIG + "more: 1\n")
    with pytest.raises(
        ValueError, match=r"config\.yaml: damaged or edited, .*; restore it from .*/checkpoints/config\.yaml, or copy"
    ):
        require_unchanged(path)
    copy_of(path).unlink()  # as earlier versions left it
    require_unchanged(path)


def test_missing_manifest_is_reported_with_its_copy(tmp_path: Path) -> None:
    write_manifest(tmp_path, request(), CONFIG)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json: missing; restore it from .*/checkpoints/manifest\.json"):
        claim(tmp_path, request())


def test_missing_manifest_of_a_running_run_is_not_reported(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    write_manifest(tmp_path, request(), CONFIG)
    (tmp_path / "manifest.json").unlink()
    command = [sys.executable, "-c", HOLDS, str(tmp_path), "first"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with pytest.raises(ValueError, match="another process is using this folder"):
            claim(tmp_path, request())
        process.communicate("")
