"""Runs of other versions: their results are read, and they are not resumed."""

import json
import shutil
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "matrix.yaml"
SETTINGS = ["--trainer.accelerator", "cpu", "--data.n", "12", "--data.seeds", "1", "--trainer.max_steps", "40"]
FIT = ["fit", "--config", str(CONFIG), *SETTINGS, "--trainer.default_root_dir"]


@pytest.fixture
def runs(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run as it is now, of version 1, and of a version that is not known."""
    monkeypatch.chdir(tmp_path)
    assert dop(*FIT, "now").status == 0
    for name, version in (("old", None), ("new", 3)):
        shutil.copytree("now", name)
        manifest = json.loads(Path("now/manifest.json").read_text())
        del manifest["version"]
        Path(name, "manifest.json").write_text(json.dumps(manifest | ({"version": version} if version else {})))
        config = Path(name, "config.yaml").read_text().replace("root_dir: now", f"root_dir: {name}")
        Path(name, "config.yaml").write_text(config)


def test_they_are_not_resumed(runs: None, dop) -> None:
    verbs = [FIT, *([verb, "--config", str(CONFIG), *SETTINGS, FIT[-1]] for verb in ("validate", "test", "predict"))]
    for name, text in (
        ("old", "old: was written by an earlier version of dop_lightning (run files of version 1, this version writes"),
        ("new", "new: was written by a later version of dop_lightning (run files of version 3, this version reads"),
    ):
        before = {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        for command in ([*verb, name] for verb in verbs):
            said = dop(*command)
            assert (said.status, said.err.count("\n")) == (2, 1), said.err
            assert text in said.err
        for verb in ("fit", "validate", "test", "predict"):
            said = dop(verb, "--config", f"{name}/config.yaml")
            assert (said.status, said.err.count("\n")) == (2, 1), said.err
            assert text in said.err
        assert before == {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}


def test_results_of_an_earlier_one_are_read(runs: None, dop) -> None:
    assert dop("table", "old").out == dop("table", "now").out
    assert Path("old/results.csv").read_bytes() == Path("now/results.csv").read_bytes()
    assert dop("report", "old").status == 0


def test_results_of_a_later_one_are_not(runs: None, dop) -> None:
    for verb in ("table", "report"):
        said = dop(verb, "new")
        assert (said.status, said.err.count("\n")) == (2, 1)
        assert "new: was written by a later version of dop_lightning" in said.err


def test_a_recovery_of_another_version_is_not_resumed(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    Path("old/manifest.json").write_text(json.dumps({"fingerprint": "x", "problems": [], "batches": []}))
    Path("m.csv").write_text("\n".join(",".join(str(i + j) for j in range(6)) for i in range(5)))
    said = dop("separate", "m.csv", "--out", "old", "--alpha", "2", "--device", "cpu")
    assert (said.status, said.err.count("\n")) == (2, 1), said.err
    assert "old: was written by an earlier version of dop_lightning" in said.err
