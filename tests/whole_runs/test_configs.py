"""Every file under ``configs/`` is read by the command and runs, at a tiny size."""

import csv
from pathlib import Path

import pytest

from dop_lightning.cli.main import main
from dop_lightning.paper.figures import FIGURES, load_figure
from dop_lightning.paper.figures.base import FittedFigure
from dop_lightning.paper.figures.configs import layers
from tests.matrices.scenes.builders import scene, write_folder

CONFIGS = Path(__file__).parents[2] / "configs"

IMAGE = ["--data.resize", "16", "--model.signal.init_args.width", "4", "--model.signal.init_args.scales", "2"]
NETWORK = ["--data.resize", "16", "--model.signal.init_args.network.init_args.width", "4"]
MATRIX = ["--data.n", "12", "--data.seeds", "2"]

RUNS = {
    "image": (["image"], IMAGE),
    "dip": (["image", "dip"], IMAGE),
    "dip_l1": (["image", "dip_l1"], IMAGE),
    "refine": (["image", "refine"], IMAGE),
    "instant": (["image", "instant"], ["--data.resize", "16"]),
    "image_grid": (
        ["image", "refine", "image_grid"],
        [*IMAGE, "--data.seeds", "1", "--data.images", "[camera, coffee]"],
    ),
    "fourier_mlp": (["fourier_mlp"], NETWORK),
    "blur": (["blur"], IMAGE),
    "superresolution": (["superresolution"], IMAGE),
    "matrix": (["matrix"], MATRIX),
    "matrix_grid": (["matrix", "matrix_grid"], ["--data.n", "[12, 9]", "--data.rank", "2", "--data.seeds", "1"]),
    "mf_l1": (["matrix", "mf_l1"], MATRIX),
    "fast_matrix": (["matrix", "fast_matrix"], MATRIX),
    "convex": (["matrix", "convex"], MATRIX),
    "sensing": (["sensing"], MATRIX),
    "completion": (["completion"], [*MATRIX, "--data.columns", "9"]),
    "scene": (["scene"], ["--data.scenes", "room", "--data.pictures", "false"]),
}
"""What each file is laid over, itself included, and the options that make it small."""

PAPER = [
    (name, run) for name in FIGURES if issubclass(kind := type(load_figure(name)), FittedFigure) for run in kind.methods
]
"""The runs of the paper's figures; tests/paper/figures does them."""

PROBLEMS = {"image_grid": 2 * 3, "matrix_grid": 2 * 4}
"""Of the grids: images or sizes × noises."""

WITHOUT_CORRUPTION = {"dip", "dip_l1", "mf_l1", "instant"}

ITERATIONS = {"instant": "1"}
"""Of those that end before the third."""


def test_every_config_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_config_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, small = RUNS[name]
    if "room" in small:
        monkeypatch.chdir(tmp_path)
        write_folder(tmp_path / "room", scene()[0][:4])
    files = [argument for layer in layers for argument in ("--config", str(CONFIGS / f"{layer}.yaml"))]
    trainer = ["--trainer.max_steps", "3", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *files, *small, *trainer]) == 0
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["status"], row["iterations"]) for row in rows] == [("done", ITERATIONS.get(name, "3"))] * len(rows)
    single = {"image", "fourier_mlp", "blur", "superresolution", "scene"} & set(layers)
    assert len(rows) == PROBLEMS.get(name, 1 if single else 2)
    assert all((row["alpha"] == "") == (name in WITHOUT_CORRUPTION) for row in rows)


@pytest.mark.parametrize("name", RUNS)
def test_a_config_is_complete(name: str, capsys) -> None:
    layers, _ = RUNS[name]
    files = [argument for layer in layers for argument in ("--config", str(CONFIGS / f"{layer}.yaml"))]
    with pytest.raises(SystemExit) as left:
        main(["fit", *files, "--print_config"])
    assert left.value.code in (0, None)
    assert "class_path" in capsys.readouterr().out


@pytest.mark.parametrize(("figure", "run"), PAPER)
def test_a_config_of_the_paper_is_complete(figure: str, run: str, capsys) -> None:
    files = [argument for path in layers(figure, run, "small") for argument in ("--config", str(path))]
    with pytest.raises(SystemExit) as left:
        main(["fit", *files, "--print_config"])
    assert left.value.code in (0, None)
    printed = capsys.readouterr().out
    if "ImageDataModule" in printed:
        assert "dop_lightning.problems.noise." in printed
    else:
        assert "MatrixDataModule" in printed
        assert "n: 50" in printed
