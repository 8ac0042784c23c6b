"""Figures 1b, 3, 4 and 5: curves and pictures of runs on photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dop_lightning.cli.main import main
from dop_lightning.paper.figures import load_figure
from dop_lightning.paper.figures.base import Row
from dop_lightning.paper.figures.configs import figure_folder
from dop_lightning.problems.noise import SaltAndPepper

FOUR = ["F16.png", "Peppers.png", "Baboon.png", "kodim03.png"]
IMAGE_FIGURES = ["1b", "3", "4", "5"]


@pytest.mark.slow
def test_learning_curves_over_widths(made) -> None:
    said, rows = made("1b")
    assert len(rows) == 6 * 2
    assert {(row["run"], row["width"]) for row in rows if row["run"].startswith("dop")} == {
        ("dop_narrow", "4"),
        ("dop_middle", "4"),
        ("dop_wide", "6"),
    }
    assert [row["iteration"] for row in rows[:2]] == ["10", "20"]
    for text in ("DIP-ℓ1 with width 6 overfits", "DOP does not overfit at any width", "at each width: "):
        assert text in said


def test_pictures_of_images(made, tmp_path: Path) -> None:
    said, rows = made("3")
    methods = ["truth", "observed", "dip", "dip_l1", "dop"]
    assert [(row["image"], row["method"]) for row in rows] == [(i, m) for i in ("camera", "chelsea") for m in methods]
    for row in rows:
        assert (tmp_path / "3" / row["file"]).is_file()
        if row["method"] in ("dip", "dip_l1"):
            assert (row["psnr"], row["iteration"]) == (row["best_psnr"], row["best_iteration"])
            assert row["file"].endswith("/best.png")
        elif row["method"] == "dop":
            assert (row["psnr"], row["iteration"]) == (row["end_psnr"], "20")
            assert row["file"].endswith("/recovered.png")
    assert "Camera" in said
    assert "without stopping, DIP-ℓ1 ends" in said


def test_pictures_of_levels_have_the_psnr_below_them(made, tmp_path: Path) -> None:
    said, rows = made("5")
    assert [row["ratio"] for row in rows[::5]] == ["0.1", "0.7"]
    pictures = {(row["problem"], row["method"]): Image.open(tmp_path / "5" / row["file"]) for row in rows}
    for row in rows:
        if row["psnr"]:
            pair = (pictures[row["problem"], method] for method in (row["method"], "truth"))
            one, truth = (np.asarray(picture, dtype=np.float64)[None] / 255 for picture in pair)
            found = -10 * np.log10(((one - truth) ** 2).mean())
            assert found == pytest.approx(float(row["psnr"]), abs=0.05)  # 8 bits
    assert "10 %" in said
    gone = tmp_path / "5" / rows[2]["file"]
    gone.unlink()
    figure = load_figure("5")
    with pytest.raises(ValueError, match="the picture is missing") as caught:
        figure.write(figure.table(tmp_path / "5"), tmp_path / "5")
    assert str(gone) in str(caught.value)


def test_learning_curves_over_images_and_levels(made) -> None:
    said, rows = made("4")
    assert len(rows) == 3 * (2 + 2) * 2
    own = {(row["image"], row["ratio"]) for row in rows if row["method"] == "default"}
    assert own == {("camera", p) for p in ("0.1", "0.5", "0.7")} | {("chelsea", "0.5")}
    assert "DIP-ℓ1 overfits: it ends" in said
    assert "the end of dop recover's default is above the end of DOP in " in said


def curve(method: str, image: str, ratio: float, *values: float, average: float | None = None) -> list[Row]:
    rows = [
        {"method": method, "image": image, "ratio": ratio, "iteration": 100 * k, "psnr": psnr}
        for k, psnr in enumerate(values, 1)
    ]
    return rows if average is None else [{**row, "psnr_average": row["psnr"] + average} for row in rows]


def test_running_average_equals_that_of_a_run(tmp_path: Path) -> None:
    figure, rows = load_figure("4"), []
    for image, ratio in (("a", 0.5), ("b", 0.5), ("a", 0.1)):
        rows += curve("dip_l1", image, ratio, 10, 22, 15)
        rows += curve("dop", image, ratio, 10, 20, 23)
        rows += curve("default", image, ratio, 12, 22.5, 22.4, average=1)
    lines = figure.verdict(rows, tmp_path)
    assert all(line.startswith("yes") for line in lines), lines
    assert lines[0].endswith("it ends 7.0 to 7.0 dB below its best, which is reached between iterations 200 and 200")
    assert lines[-1].endswith("above the end of DOP in 3 of 3, by +0.4 to +0.4 dB")
    figure.write(rows, tmp_path)
    assert "default,a,0.5,300,22.4,23.4" in (tmp_path / "4.csv").read_text()


def test_rival_at_least_as_good_is_reported(tmp_path: Path) -> None:
    rows = curve("dip_l1", "a", 0.5, 10, 24, 24) + curve("dop", "a", 0.5, 10, 20, 18) + curve("default", "a", 0.5, 25)
    marks = [line[:3] for line in load_figure("4").verdict(rows, tmp_path)]
    assert marks == ["NO ", "NO ", "yes", "NO ", "yes", "yes"]


# ----------------------------------------------------------------------------------------------------- the paper's size


class Asked:
    """Does no run, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[list[Path], list[str]]] = {}

    def __call__(self, name: str, configs: list[Path], folder: Path, options: list[str]) -> int:
        self.runs[name] = (configs, options)
        return 0


@pytest.fixture
def standard(tmp_path: Path) -> Path:
    """A folder with files of the names of the four standard images."""
    folder = tmp_path / "my images"
    folder.mkdir()
    for name in FOUR:
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


@pytest.mark.parametrize("name", IMAGE_FIGURES)
def test_folder_overrides_that_of_the_configs(name: str, standard: Path, tmp_path: Path) -> None:
    figure, asked = load_figure(name), Asked()
    figure.use_images(standard)
    assert figure.compute(tmp_path, "paper", asked) == 0
    assert list(asked.runs) == list(figure.methods)
    for configs, options in asked.runs.values():
        assert len(configs) == 1
        assert options[0] == "--data.images"
        assert json.loads(options[1]) in ([str(standard / image) for image in FOUR], [str(standard / "F16.png")])


def test_run_uses_the_images_of_a_folder(standard: Path, tmp_path: Path, capsys) -> None:
    figure, asked = load_figure("3"), Asked()
    figure.use_images(standard)
    figure.compute(tmp_path, "paper", asked)
    configs, options = asked.runs["dop"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(configs[0]), *options, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["images"] == [str(standard / image) for image in FOUR]


def test_folder_defaults_to_that_of_the_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^data/standard: the paper's images F16\.png are missing; run scripts/fetch_images\.py"
    ):
        load_figure("5").compute(tmp_path, "paper", Asked())
    (tmp_path / "data" / "standard").mkdir(parents=True)
    for name in FOUR[:3]:
        (tmp_path / "data" / "standard" / name).touch()
    asked = Asked()
    assert load_figure("5").compute(tmp_path, "paper", asked) == 0
    assert [options for _, options in asked.runs.values()] == [[]] * 3
    with pytest.raises(ValueError, match=r"images kodim03\.png are missing;"):
        load_figure("3").compute(tmp_path, "paper", Asked())


@pytest.mark.parametrize("name", IMAGE_FIGURES)
def test_settings_equal_the_paper(name: str) -> None:
    for path in figure_folder(name).glob("*.yaml"):
        if path.stem == "small" or path.stem.startswith("default"):
            continue
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        model, data = config["model"], config["data"]["init_args"]
        assert config["trainer"]["max_steps"] == (200_000 if name == "1b" else 150_000)
        width = {"narrow": 64, "wide": 192}.get(path.stem.split("_")[-1], 128)
        assert model["signal"] == {"class_path": "SkipUNet", "init_args": {"width": width}}
        assert model["tau"] == 1
        assert model["loss"]["init_args"] == {"reduction": "mean"}
        assert model["loss"]["class_path"] == ("AbsoluteLoss" if "l1" in path.stem else "SquaredLoss")
        assert (model["corruption"] is None) == path.stem.startswith("dip")
        if model["corruption"]:
            assert model["alpha"] == 500
            assert model["corruption"]["init_args"] == {"scale": 1e-5, "tied": False}
        noises = data["noise"] if isinstance(data["noise"], list) else [data["noise"]]
        ratios = [noise["init_args"]["ratio"] for noise in noises]
        assert ratios == {"5": [0.1, 0.3, 0.5, 0.7]}.get(name, [0.1, 0.3, 0.7] if "levels" in path.stem else [0.5])
        assert all(noise["class_path"].endswith(SaltAndPepper.__name__) for noise in noises)
