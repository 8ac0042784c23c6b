"""Every file under ``configs/`` is read by the command and runs, at a tiny size."""

import csv
from pathlib import Path

import pytest

from dop_lightning.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"

IMAGE = ["--data.resize", "16", "--model.signal.init_args.width", "4", "--model.signal.init_args.scales", "2"]
MATRIX = ["--data.n", "12", "--data.seeds", "2"]

RUNS = {
    "image": (["image"], IMAGE),
    "dip": (["image", "dip"], IMAGE),
    "dip_l1": (["image", "dip_l1"], IMAGE),
    "matrix": (["matrix"], MATRIX),
    "mf_l1": (["matrix", "mf_l1"], MATRIX),
}
"""What each file is laid over, itself included, and the options that make it small."""

WITHOUT_CORRUPTION = {"dip", "dip_l1", "mf_l1"}


def test_every_file_is_tried() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_config_runs(name: str, tmp_path: Path) -> None:
    layers, small = RUNS[name]
    files = [argument for layer in layers for argument in ("--config", str(CONFIGS / f"{layer}.yaml"))]
    trainer = ["--trainer.max_steps", "3", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *files, *small, *trainer]) == 0
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["status"], row["iterations"]) for row in rows] == [("done", "3")] * len(rows)
    assert len(rows) == (2 if "matrix" in layers else 1)
    assert all((row["alpha"] == "") == (name in WITHOUT_CORRUPTION) for row in rows)


@pytest.mark.parametrize("name", RUNS)
def test_a_config_is_complete(name: str, capsys) -> None:
    layers, _ = RUNS[name]
    files = [argument for layer in layers for argument in ("--config", str(CONFIGS / f"{layer}.yaml"))]
    with pytest.raises(SystemExit) as left:
        main(["fit", *files, "--print_config"])
    assert left.value.code in (0, None)
    assert "class_path" in capsys.readouterr().out
