"""Every figure of the paper: its runs, its table, its drawing."""

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dop_lightning.foundation.atomic import checked_json
from dop_lightning.paper.figures import FIGURES, load_figure
from dop_lightning.paper.figures.base import ComputedFigure, FittedFigure
from dop_lightning.paper.figures.configs import figure_folder, layers
from dop_lightning.paper.figures.grid import Grid, _oracles

BUNDLED = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", FIGURES)
def test_configs_belong_to_the_figure(name: str) -> None:
    figure, found = load_figure(name), {path.stem for path in figure_folder(name).glob("*.yaml")}
    assert figure.name == name
    if isinstance(figure, FittedFigure):
        assert found - {"small"} == set(figure.methods)
        assert all(path.is_file() for run in figure.methods for path in layers(name, run, "small"))
    else:
        assert isinstance(figure, ComputedFigure)
        assert found == {"small", "paper"}
        assert figure.settings("small").keys() == figure.settings("paper").keys()


def test_learning_curves(made) -> None:
    said, rows = made("1a")
    assert len(rows) == 4 * 6
    ends = {row["method"]: float(row["median"]) for row in rows if row["iteration"] == "600"}
    assert ends["mf_exact_decay"] < 1e-3 < ends["mf_over"]
    assert all(float(row["least"]) <= float(row["median"]) <= float(row["largest"]) for row in rows)
    assert "MF-ℓ1 with r' = r converges up to the length of its steps" in said


def test_errors_over_alpha(made) -> None:
    said, rows = made("2a")
    assert [float(row["alpha_scale"]) for row in rows] == [0.3, 1.0, 3.0]
    assert math.isclose(float(rows[1]["alpha"]), math.sqrt(12), rel_tol=1e-5)
    assert {row["instances"] for row in rows} == {"2"}
    assert float(rows[1]["signal_mean"]) < min(float(rows[0]["signal_mean"]), float(rows[2]["signal_mean"]))
    assert "yes  mean error of X̂ at α = √n" in said
    assert "0.0 % above the best of the grid (at 1·√n)" in said


def test_recovery_over_rank_and_corruption(made, tmp_path: Path) -> None:
    said, rows = made("2bc")
    assert [(row["rank"], row["ratio"]) for row in rows] == [("1", "0.1"), ("1", "0.4"), ("3", "0.1"), ("3", "0.4")]
    assert rows[0]["trials"] == "2"
    assert float(rows[0]["convex_psd"]) == 1
    assert float(rows[3]["convex"]) == 0
    assert "DOP against convex: below in" in said
    assert "automatic and constant steps agree in" in said
    assert "seconds of the iterations: DOP " in said
    runs = tmp_path / "2bc" / "runs"
    for method in ("dop", "convex"):  # files.most_pictures
        assert len(list(runs.glob(f"{method}/*/recovered.npy"))) == 8
        assert [path.parent.name for path in runs.glob(f"{method}/*/recovered.png")] == [
            "n12-r1-gross-outliers-0.1-seed0"
        ]


@pytest.mark.slow
def test_theorem_1(made) -> None:
    said, rows = made("theorem-1")
    limits = [row for row in rows if row["method"] == "limit"]
    assert [(row["alpha"], row["gamma"]) for row in limits] == [
        ("0.5", "0.01"),
        ("0.5", "1e-05"),
        ("1", "0.01"),
        ("1", "1e-05"),
    ]
    for far, near in (limits[:2], limits[2:]):
        assert float(near["distance"]) < float(far["distance"])
        assert float(near["feasibility"]) < 1e-9
        assert float(near["product"]) < float(far["product"])
    others = [row for row in rows if row["method"] != "limit"]
    assert {row["method"] for row in others} == {"descent", "flow"}
    assert {row["gamma"] for row in others} == {"0.01"}
    assert all(float(row["to_limit"]) < 0.05 for row in others)
    assert "the integrated flow ends near its limit: median distance at most" in said


def test_appendix_a(made) -> None:
    said, rows = made("appendix-a")
    plain, weighted = ([row for row in rows if row["rates"] == name] for name in ("I", "random 1"))
    assert len(plain) == len(weighted) == 81
    assert [row["iteration"] for row in plain][::40] == ["0", "150", "300"]
    assert max(float(plain[-1]["to_weighted"]), float(weighted[-1]["to_weighted"])) < 1e-8
    assert float(weighted[-1]["to_plain"]) > 0.1
    assert said.count("yes  Λ = ") == 2


def test_zero_optimum_gives_a_finite_distance(tiny: Callable[[str], Path]) -> None:
    tiny("theorem-1")
    figure = load_figure("theorem-1")
    assert isinstance(figure, ComputedFigure)
    settings = figure.settings("small")
    rows = figure.rows({**settings, "alphas": [20.0], "descent": {**settings["descent"], "gammas": []}})
    assert all(row["distance"] < 1 for row in rows)


def test_grid_of_the_default_and_its_rivals(made) -> None:
    said, rows = made("grid")
    assert len(rows) == 4 * 2 * 2
    assert {row["method"] for row in rows} == {"default", "dop", "dip_l1", "dip"}
    assert all(float(row["oracle"]) >= float(row["end"]) for row in rows)
    assert "at 10% it is " in said
    assert "at 70% the default is " in said
    assert "of those 2 cases" in said


@pytest.mark.slow
def test_grid_shows_rivals_with_the_methods(tiny, dop, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    own, out = tiny("grid"), tmp_path / "out"
    rivals = tmp_path / "configs" / "rivals"
    shutil.copytree(BUNDLED / "rivals", rivals)
    layers = [own / "default.yaml", own / "small" / "default.yaml", rivals / "namf.yaml"]
    files = [argument for path in layers for argument in ("--config", str(path))]
    options = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir"]
    assert dop("fit", *files, *options, str(tmp_path / "runs" / "mine")).status == 0
    arguments = ["figure", "grid", "--out", str(out), "--device", "cpu"]
    said = dop(*arguments, "--rivals", "telea", "adaptive_median", "--runs", str(tmp_path / "runs"))
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("at the end")))
    assert [line.split("  ")[0] for line in lines[first + 1 : first + 5]] == [
        "default",
        "Telea",
        "adaptive median",
        "mine",
    ]
    assert re.search(r"the default is [+-][\d.]+ dB over mine, better in \d of 4", said.out)
    with (out / "grid.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    methods = ["default", "dop", "dip_l1", "dip", "telea", "adaptive_median", "mine"]
    assert [row["method"] for row in rows[::4]] == methods
    with Image.open(out / "grid.png") as wide:
        assert wide.width > 1400
    assert dop(*arguments).status == 0  # without the options: without the rivals
    with (out / "grid.csv").open(newline="", encoding="utf-8") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"default", "dop", "dip_l1", "dip"}

    # a run that lacks problems, or has others of the same names, is no rival of this figure
    (result,) = (tmp_path / "runs" / "mine").glob("camera*0.1*/result.json")
    content = json.loads(result.read_text(encoding="utf-8"))
    checked_json(result, {**content, "input_psnr": 3.0})
    said = dop(*arguments, "--runs", str(tmp_path / "runs" / "mine"))
    assert said.status == 2
    assert "differs from the problem of the figure: its input PSNR is 3.00 dB instead of" in said.err
    result.unlink()
    said = dop(*arguments, "--runs", str(tmp_path / "runs" / "mine"))
    assert said.status == 2
    assert "no result for 1 of the 4 problems of the figure, such as camera, 10%, seed 0" in said.err


def test_grid_uses_the_average_of_an_oracle_if_better(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("problem,iteration,tag,value\na,10,psnr,20\na,20,psnr_average,21\na,20,loss,99\na,30,psnr,19\n")
    assert _oracles(tmp_path) == {"a": (21.0, 20)}


def test_verdict_of_the_grid() -> None:
    def rows(level: float, **ends: float) -> list[dict[str, object]]:
        return [
            {"method": method, "image": "a", "level": level, "seed": 0, "end": end, "oracle": end + 0.5}
            | {"precision": 0.99 if method == "default" else None, "recall": 0.98}
            for method, end in ends.items()
        ]

    good = rows(0.1, default=30.0, dop=28.0, dip_l1=29.0, dip=20.0) + rows(
        0.5, default=27.0, dop=24.0, dip_l1=25.0, dip=9.0
    )
    lines = Grid().verdict(good, Path())
    assert [line[:3] for line in lines] == ["yes", "yes", "yes", "yes", "   "]
    assert "+0.50 dB over the oracle of DIP-ℓ1" in lines[0]
    assert "+1.50 dB over the best oracle" in lines[1]
    assert "misses 2.00% of the corrupted entries; 1.00% of the detected entries are clean" in lines[4]
    rival = rows(0.1, namf=31.0) + rows(0.5, namf=27.5)
    assert Grid().verdict(good + rival, Path())[4] == "NO   the default is -0.75 dB over NAMF, better in 0 of 2"
    bad = rows(0.1, default=29.0, dop=28.0, dip_l1=29.0, dip=20.0) + rows(
        0.5, default=25.0, dop=24.0, dip_l1=25.0, dip=9.0
    )
    assert [line[:3] for line in Grid().verdict(bad, Path())] == ["NO ", "NO ", "NO ", "NO ", "   "]
