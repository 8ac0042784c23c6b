"""Runs of other versions: their results are read; those of version 2 are resumed, others are not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from dop_lightning.foundation.checksums import read_json
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.runs.fingerprint import fingerprint
from dop_lightning.runs.folder import VERSION

CONFIG = Path(__file__).parents[2] / "configs" / "matrix.yaml"
SETTINGS = ["--trainer.accelerator", "cpu", "--data.n", "12", "--data.seeds", "1", "--trainer.max_steps", "40"]
FIT = ["fit", "--config", str(CONFIG), *SETTINGS, "--trainer.default_root_dir"]


@pytest.fixture
def runs(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run as it is now, of version 1, of version 2, and of a version that is not known."""
    monkeypatch.chdir(tmp_path)
    assert dop(*FIT, "now").status == 0
    for name, version in (("old", None), ("second", 2), ("new", VERSION + 1)):
        shutil.copytree("now", name)
        manifest = json.loads(Path("now/manifest.json").read_text())
        del manifest["version"], manifest["settings"], manifest["checksum"]
        for problem in manifest["problems"]:
            del problem["mark"], problem["rates"]
        Path(name, "manifest.json").write_text(json.dumps(manifest | ({"version": version} if version else {})))
        for copy in ("manifest.json", "config.yaml"):  # which later versions have
            Path(name, "checkpoints", copy).unlink()
        _, config = Path(name, "config.yaml").read_text().replace("root_dir: now", f"root_dir: {name}").split("\n", 1)
        Path(name, "config.yaml").write_text(config)


def test_runs_of_other_versions_are_not_resumed(runs: None, dop) -> None:
    verbs = [FIT, *([verb, "--config", str(CONFIG), *SETTINGS, FIT[-1]] for verb in ("validate", "test", "predict"))]
    for name, text in (
        (
            "old",
            "old: was written by an earlier version of dop_lightning (run files of version 1, this version resumes",
        ),
        ("new", "new: was written by a later version of dop_lightning (run files of version 4, this version reads"),
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


@pytest.mark.parametrize("name", ["old", "second"])
def test_results_of_an_earlier_version_are_readable(name: str, runs: None, dop) -> None:
    assert dop("table", name).out == dop("table", "now").out
    assert Path(name, "results.csv").read_bytes() == Path("now/results.csv").read_bytes()
    assert dop("report", name).status == 0


def of_version_2(run: Path, data: MatrixDataModule) -> None:
    """Give a run the fingerprint of version 2, in its manifest and its checkpoint."""
    data.setup()
    mark = fingerprint(yaml.safe_load((run / "config.yaml").read_text()), data.problems)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": mark}))
    (batch,) = run.glob("checkpoints/last.ckpt/*.pt")
    content = {key: value for key, value in torch.load(batch, weights_only=True).items() if key != "checksum"}
    torch.save({**content, "run": mark}, batch)


@pytest.fixture
def second(runs: None) -> Path:
    of_version_2(Path("second"), MatrixDataModule(n=12, rank=5, noise=GrossOutliers(0.3), seeds=1))
    return Path("second")


def test_a_run_of_version_2_is_resumed_and_upgraded(second: Path, dop) -> None:
    assert dop("validate", "--config", "second/config.yaml").out.count("done") == 1
    before = json.loads(Path("second/manifest.json").read_text())
    said = dop(*FIT, "second", "--trainer.max_steps", "60")
    assert "Resuming the run in second\n" in said.err, said.err
    after, now = (read_json(Path(name, "manifest.json")) for name in ("second", "now"))
    assert (after["version"], after["fingerprint"]) == (VERSION, before["fingerprint"])
    assert {**after, "fingerprint": now["fingerprint"]} == now
    assert dop(*FIT, "now", "--trainer.max_steps", "60").status == 0
    recovered = [Path(name, "n12-r5-gross-outliers-0.3-seed0/recovered.npy").read_bytes() for name in ("second", "now")]
    assert recovered[0] == recovered[1]


def test_a_run_of_version_2_grows(second: Path, dop) -> None:
    result = Path("second/n12-r5-gross-outliers-0.3-seed0/result.json")
    before = result.read_bytes()
    said = dop(*FIT, "second", "--data.seeds", "2")
    assert "Resuming the run in second, with 1 new problem\n" in said.err, said.err
    assert result.read_bytes() == before
    assert len(json.loads(Path("second/manifest.json").read_text())["batches"]) == 2


def test_another_run_of_version_2_is_refused(second: Path, dop) -> None:
    for settings, reason in (
        (["--model.tau", "0.5"], "holds another run (model.tau: 0.0001 in the run, 0.5 given)"),
        (["--data.n", "13"], "holds another run (data.n: 12 in the run, 13 given)"),
        (["--stable.window", "7"], "holds another run (stable.window: 5 in the run, 7 given)"),
    ):
        said = dop(*FIT, "second", *settings)
        assert (said.status, said.err.count("\n")) == (2, 1), said.err
        assert reason in said.err


def test_a_run_of_version_2_with_other_data_is_refused(runs: None, dop) -> None:
    of_version_2(Path("second"), MatrixDataModule(n=12, rank=5, noise=GrossOutliers(0.2), seeds=1))
    said = dop(*FIT, "second")
    assert "holds another run (its settings or data differ, see second/config.yaml)" in said.err


def test_results_of_a_later_version_are_not_readable(runs: None, dop) -> None:
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
