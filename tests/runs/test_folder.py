"""The one reader of the folder of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from dop_lightning.runs.folder import RunFolder, default_folder, planned_batches, saved_settings
from tests.runs.builders import RESULT, write_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Problems b and a, of which b has no result; curves of both."""
    curves = {"psnr": {20: 12.0, 40: 20.5}}
    return RunFolder(write_run(tmp_path / "run", {"b": None, "a": {}}, curves=curves, config="model: {tau: 1.0}\n"))


def test_all_files_are_read(run: RunFolder) -> None:
    manifest = run.manifest()
    assert (manifest.version, manifest.fingerprint, manifest.batches) == (2, "x", [])
    assert manifest.problems[1] == {"name": "a", "shape": [1, 12, 16], "attributes": {}}
    assert run.config_text() == "model: {tau: 1.0}\n"
    assert (run.setting("model", "tau"), run.section(), run.section("model")) == (
        1.0,
        {"model": {"tau": 1.0}},
        {"tau": 1.0},
    )
    assert run.result("a") == {"problem": "a", **RESULT}
    assert run.results() == [run.result("a")]
    assert list(run.metrics())[2:] == [("a", 20, "psnr", 12.0), ("a", 40, "psnr", 20.5)]


def test_folder_without_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "none")
    assert (run.has_run, run.config_text(), run.results()) == (False, None, [])
    assert (planned_batches(run.path), saved_settings(run.path, "model")) == (None, {})
    for read in (run.manifest, run.setting, lambda: run.result("a"), lambda: list(run.metrics())):
        with pytest.raises(FileNotFoundError, match="none"):
            read()


@pytest.mark.parametrize(
    ("file", "text", "read", "message"),
    [
        ("manifest.json", "{", RunFolder.manifest, "not a manifest written by dop"),
        ("manifest.json", '{"version": "x"}', RunFolder.manifest, "not a manifest written by dop"),
        ("manifest.json", '{"version": 2, "fingerprint": "x", "problems": []}', RunFolder.manifest, "not a manifest"),
        ("manifest.json", '{"fingerprint": "x", "problems": [{}]}', RunFolder.results, "not a manifest written by dop"),
        ("config.yaml", "model: [", RunFolder.setting, "not a config written by dop"),
        ("config.yaml", "\xff", RunFolder.setting, "not a config written by dop"),
        ("config.yaml", "data: 1", lambda run: run.setting("model"), "not a config written by dop"),
        ("config.yaml", "model: 1", lambda run: run.section("model"), "not a config written by dop (model contains no"),
        ("config.yaml", "1", RunFolder.section, "not a config written by dop (the file contains no settings)"),
        ("a/result.json", "[1]", RunFolder.results, "not a result written by dop"),
        ("a/result.json", "\xff", lambda run: run.result("a"), "not a result written by dop"),
        ("metrics.csv", "problem,iteration\na,1\n", lambda run: list(run.metrics()), "not curves written by dop"),
    ],
)
def test_a_damaged_file_is_named(file: str, text: str, read: Any, message: str, run: RunFolder) -> None:
    (run.path / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="written by dop") as error:
        read(run)
    assert str(error.value).startswith(f"{run.path / file}: {message}")


def test_results_of_an_earlier_version_are_read(run: RunFolder) -> None:
    entries = [{"name": "a", "shape": [2, 2]}]
    run.manifest_path.write_text(json.dumps({"fingerprint": "x", "problems": entries}))
    manifest = run.manifest()
    assert (manifest.version, manifest.problems, manifest.batches) == (1, entries, [])
    assert [result["problem"] for result in run.results()] == ["a"]


def test_later_versions_are_not_read(run: RunFolder) -> None:
    run.manifest_path.write_text('{"version": 99}')
    for read in (run.manifest, run.results, run.check_resumable):
        with pytest.raises(ValueError, match="run: was written by a later version of dop_lightning"):
            read()


@pytest.mark.parametrize("text", ["model: [", "model: 1", "data: {}", ""])
def test_unreadable_settings_are_none(text: str, run: RunFolder) -> None:
    assert saved_settings(run.path, "model") == {"tau": 1.0}
    run.config_path.write_text(text)
    assert saved_settings(run.path, "model") == {}


def test_a_folder_by_experiment_and_time() -> None:
    folder = default_folder("image")
    assert folder.parent == Path("runs") / "image"
    assert folder.name.count("-") == 4


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "/etc", "a/b", "a\\b"])
def test_a_problem_outside_of_the_run_is_refused(name: str, tmp_path: Path) -> None:
    manifest = {"fingerprint": "0", "problems": [{"name": name}], "batches": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest.json: not a manifest .* must be a valid folder name, got"):
        RunFolder(tmp_path).manifest()
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"manifest.json: not a manifest"):
        RunFolder(tmp_path).manifest()
