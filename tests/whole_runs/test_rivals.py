"""Every file under ``configs/rivals/`` runs on an image, and ends in the rows of all methods."""

import csv
import json
from pathlib import Path

import pytest

from dop_lightning.cli.main import main
from dop_lightning.lightning.module import DoubleOverparameterization
from tests.engine.rivals.builders import FILTERS

CONFIGS = Path(__file__).parents[2] / "configs"


def fit(name: str, out: Path, *more: str) -> dict[str, str]:
    """The row of a run on a small photograph."""
    files = ["--config", str(CONFIGS / "image.yaml"), "--config", str(CONFIGS / "rivals" / f"{name}.yaml")]
    small = ["--data.resize", "24", "--data.noise.init_args.ratio", "0.3", "--trainer.default_root_dir", str(out)]
    assert main(["fit", *files, *small, "--trainer.accelerator", "cpu", *more]) == 0
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return row


def test_every_rival_has_a_config() -> None:
    assert {path.stem for path in (CONFIGS / "rivals").glob("*.yaml")} == set(FILTERS)


@pytest.mark.parametrize("name", FILTERS)
def test_a_rival_runs(name: str, tmp_path: Path) -> None:
    row = fit(name, tmp_path)
    assert (row["status"], row["iterations"], row["alpha"]) == ("done", "1", "")
    assert float(row["psnr"]) > float(row["input_psnr"]) + 7
    result = json.loads((tmp_path / row["problem"] / "result.json").read_text(encoding="utf-8"))
    assert result["psnr"] == pytest.approx(float(row["psnr"]), abs=1e-3)


def test_the_interpolation_runs_as_a_filter(tmp_path: Path) -> None:
    files = ["--config", str(CONFIGS / "image.yaml"), "--config", str(CONFIGS / "instant.yaml")]
    small = ["--data.resize", "48", "--data.noise.init_args.ratio", "0.3", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *files, *small, "--trainer.accelerator", "cpu"]) == 0
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["iterations"], row["alpha"]) == ("done", "1", "")
    assert float(row["psnr"]) > float(row["input_psnr"]) + 10
    assert (tmp_path / row["problem"] / "corruption_probability.npy").is_file()


def test_another_detector_is_one_option_and_a_run_is_read_back(tmp_path: Path, capsys) -> None:
    robust = ["--model.filter.init_args.detector", "RobustThreshold"]
    row = fit("cubic", tmp_path, *robust)
    assert fit("cubic", tmp_path, *robust) == row  # nothing is left to do
    capsys.readouterr()
    assert main(["table", str(tmp_path)]) == 0
    assert "done" in capsys.readouterr().out
    assert main(["test", "--config", str(tmp_path / "config.yaml"), "--trainer.accelerator", "cpu"]) == 0
    assert row["psnr"][:4] in capsys.readouterr().out


def test_tiles_are_blended(tmp_path: Path) -> None:
    row = fit("biharmonic", tmp_path, "--data.tile", "16", "--data.overlap", "4")
    assert (row["status"], row["alpha"]) == ("done", "")
    assert float(row["corruption_density"]) > 0.1


def test_a_module_of_a_filter_is_saved_by_plain_settings() -> None:
    module = DoubleOverparameterization(filter=FILTERS["bm3d"]())
    fill = module.hparams["filter"]["init_args"]["fill"]
    assert fill["init_args"]["detector"]["init_args"] == {"tolerance": 0.0}
    assert fill["init_args"]["filler"]["class_path"].endswith("CubicScattered")
