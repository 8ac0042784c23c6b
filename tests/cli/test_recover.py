"""Options of ``dop recover``: config, tiles, memory, presets, masks and ranges."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dop_lightning.cli.configs import recover
from dop_lightning.cli.configs.preset_times import preset_lines
from dop_lightning.cli.main import main
from dop_lightning.cli.recover import PRESET_NAMES, parser
from dop_lightning.images import cost
from dop_lightning.images.formats import png
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.tiles import tile_text

CONFIGS = Path(__file__).parents[2] / "configs"

TINY = ["--width", "2", "--iterations", "2", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a photograph of 100×70 pixels."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return tmp_path


def config(*options: str) -> dict:
    return recover.config(parser().parse_args(["photo.png", "--out", "out", *options]))[0]


def saved() -> dict:
    return yaml.safe_load(Path("out/config.yaml").read_text())


# -------------------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("preset", [name for name in PRESETS if PRESETS[name].has_network])
def test_options_override_the_preset(preset: str, folder: Path) -> None:
    chosen = PRESETS[preset]
    plain = config("--preset", preset)
    assert plain["model"]["signal"]["init_args"]["width"] == chosen.width
    assert plain["model"]["alpha"] == chosen.alpha
    assert (plain["model"].get("steps") is not None) == chosen.refined
    assert plain["trainer"]["max_steps"] == chosen.iterations
    mine = config("--preset", preset, "--width", "5", "--alpha", "7", "--iterations", "9")
    assert mine["model"]["signal"]["init_args"]["width"] == 5
    assert mine["model"]["alpha"] == 7
    assert mine["trainer"]["max_steps"] == 9


def test_the_instant_preset_is_a_filter(folder: Path) -> None:
    assert config("--preset", "instant")["model"] == {
        "filter": {"class_path": "Interpolation"},
        "block": 1,
        "evaluate_every": 1,
    }
    told = config("--preset", "instant", "--per", "pixel", "--outliers", "positive", "--damage", "dust")["model"]
    assert told["filter"]["init_args"] == {"per": "pixel", "damage": "dust", "sign": "positive"}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--width", "8", "width is not supported by the preset instant, which has no network, got 8"),
        ("--iterations", "8", "iterations is not supported by the preset instant, which has no network, got 8"),
        ("--alpha", "8", "alpha is not supported by the preset instant, which has no network, got 8.0"),
        ("--precision", "bf16", "precision is not supported by the preset instant, which has no network, got 'bf16'"),
        ("--dense", "remove", "dense must be auto or keep with the preset instant"),
    ],
)
def test_network_settings_are_refused_without_a_network(option: str, value: str, said: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=said):
        config("--preset", "instant", option, value)


def test_paper_preset_equals_the_paper(folder: Path) -> None:
    paper = config("--preset", "paper")
    assert paper["model"]["signal"]["init_args"]["width"] == 128
    assert (paper["model"]["tau"], paper["model"]["alpha"], paper["trainer"]["max_steps"]) == (1.0, 500.0, 150_000)
    assert paper["model"]["corruption"]["init_args"] == {"scale": 1e-5, "tied": False}


def test_the_default_is_the_method_of_refine_yaml(folder: Path) -> None:
    """What dop recover does is a config that dop fit does too, and that of the grid in docs/results.md."""
    own = config()["model"]
    image, refine, grid = (
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("image", "refine", "paper/grid/default")
    )
    same = ("corruption", "loss", "theta_optimizer", "steps", "tau", "alpha")
    assert {key: own[key] for key in same} == {key: {**image["model"], **refine["model"]}[key] for key in same}
    assert {key: own[key] for key in same} == {key: grid["model"][key] for key in same}
    assert own["signal"]["init_args"]["width"] == refine["model"]["signal"]["init_args"]["width"]
    assert config()["trainer"]["max_steps"] == refine["trainer"]["max_steps"]


@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_how_often_files_are_read(names: list[str], folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header decides on tiles before pixels are in memory; one of several images is read again in its turn."""
    calls: list[tuple[str, str]] = []
    for what in ("shape", "read"):
        own = getattr(png, what)

        def counted(path: Path, own: Callable[[Path], Any] = own, what: str = what) -> Any:
            calls.append((what, path.name))
            return own(path)

        monkeypatch.setattr(png, what, counted)
    Image.new("L", (100, 70), 255).save("mask.png")
    files = [f"{name}.png" for name in names]
    for file in files:
        shutil.copy("photo.png", file)
    said = dop("recover", *files, "--truth", "photo.png", "--mask", "mask.png", "--out", "out", *TINY)
    assert said.status == 0
    once = [("shape", file) for file in files]
    read = [("read", file) for each in files for file in (each, "photo.png", "mask.png")]
    assert sorted(calls) == sorted([*once, *read * len(names)])


def test_precision_applies_to_network_and_optimizer(folder: Path) -> None:
    for precision in ("fp32", "bf16"):
        model = config("--precision", precision)["model"]
        assert model["signal"]["init_args"]["precision"] == precision
        assert model["theta_optimizer"]["init_args"]["precision"] == precision


def test_presets_are_listed_with_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {0: 0.5, 16: 0.0375, 32: 0.15, 128: 0.2}
    monkeypatch.setattr("dop_lightning.cli.configs.preset_times._probe", lambda preset, *_: seconds[preset.width])
    text = "\n".join(preset_lines(256))
    assert "presets, with their time for 256×256 pixels in colour on " in text
    found = dict(re.findall(r"^  (\w+) .*(about .*?)   ", text, re.MULTILINE))
    # iterations × seconds at 128×128 × 4, or × 9 for 4 tiles of 192×192
    assert found["quick"].strip() == "about 1 minute"
    assert found["default"].strip() == "about 6 minutes"
    assert found["paper"].strip() == "about 33 hours"
    found = dict(re.findall(r"^  (\w+) .*(about .*?)   ", "\n".join(preset_lines(512)), re.MULTILINE))
    assert found["default"].strip() == "about 14 minutes"  # 9 tiles of 192×192


def test_help_lists_all_presets() -> None:
    assert tuple(PRESETS) == PRESET_NAMES


def test_non_utf8_paths_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dop) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        (folder / "\udcff.npy").touch()
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system has no such names")
    np.save(folder / "\udcff.npy", np.zeros((8, 8), dtype=np.uint8))
    said = dop("recover", "in", "--out", "out", "--width", "4")
    assert said.status == 2
    assert said.err == f"dop recover: error: {folder}/\ufffd.npy: the path of a file must be text in UTF-8; rename it\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_help_times_the_presets_on_this_machine(dop) -> None:
    said = dop("recover", "--help")
    assert said.status == 0
    assert re.search(r"quick +width 16, 175 iterations +a\S+ \S+ \w+", said.out)
    assert said.err == ""


# ----------------------------------------------------------------------------------------------------- tiles and memory


def test_images_that_fit_are_recovered_whole(folder: Path, dop) -> None:
    said = dop("recover", "photo.png", "--out", "out", *TINY)
    assert said.status == 0
    assert saved()["data"]["init_args"]["tile"] is None
    assert said.err.splitlines()[0].startswith("100×70 pixels: about ")
    assert re.search(r"^The iterations will take a.*, \S+ s each for the largest problem$", said.err, re.MULTILINE)


def test_tiles_on_request(folder: Path, dop) -> None:
    said = dop("recover", "photo.png", "--out", "out", "--tile", "64", *TINY)
    assert said.status == 0
    assert "100×70 pixels in tiles of 64×64: about " in said.err
    assert "1 problem in 4 parts, up to 2 iterations" in said.err
    with Image.open("out/photo/recovered.png") as image:
        assert image.size == (100, 70)
    assert [line.split()[:3] for line in said.out.splitlines()[1:2]] == [["photo", "done", "2"]]


@pytest.mark.slow
def test_other_verbs_treat_a_tiled_image_as_one(folder: Path, dop) -> None:
    fitted = dop("recover", "photo.png", "--truth", "photo.png", "--out", "out", "--tile", "64", *TINY)
    before = Path("out/photo/recovered.png").read_bytes()
    for verb in ("validate", "test"):
        said = dop(verb, "--config", "out/config.yaml")
        assert said.status == 0
        seconds = fitted.out.splitlines()[0].split().index("seconds")
        titles, row = (line.split() for line in said.out.splitlines()[:2])
        assert "seconds" not in titles
        assert row == [cell for k, cell in enumerate(fitted.out.splitlines()[1].split()) if k != seconds]
    shutil.rmtree("out/photo")
    assert dop("predict", "--config", "out/config.yaml").status == 0
    assert Path("out/photo/recovered.png").read_bytes() == before


def test_damaged_tile_is_reported_and_rewritten(folder: Path, dop) -> None:
    options = ["--out", "out", "--tile", "64", *TINY]
    assert dop("recover", "photo.png", *options).status == 0
    Path("out/photo/tiles/r0-c1/recovered.npy").write_bytes(b"half")
    Path("out/photo/result.json").unlink()
    said = dop("recover", "photo.png", *options)
    assert said.status == 0
    assert "out/photo/tiles/r0-c1/recovered.npy: damaged, its checksum differs: rewriting it" in said.err
    assert np.load("out/photo/tiles/r0-c1/recovered.npy").ndim == 3


@pytest.mark.slow
def test_tiles_if_memory_is_short(folder: Path, dop) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 900), dtype=np.uint8)
    Image.fromarray(pixels).save("wide.png")
    said = dop("recover", "wide.png", "--out", "out", "--max-memory", "1000M", "--width", "8", *TINY[2:])
    assert said.status == 0
    tile = saved()["data"]["init_args"]["tile"]
    assert tile is not None
    assert f"900×200 pixels in tiles of {tile_text(tile)}: about " in said.err


def test_rectangular_tiles_are_chosen_and_resumed(folder: Path, dop) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 250), dtype=np.uint8)
    Image.fromarray(pixels).save("wide.png")
    for iterations in ("1", "2"):
        said = dop("recover", "wide.png", "--out", "out", "--iterations", iterations, "--width", "2")
        assert said.status == 0, said.err
        assert "250×40 pixels in tiles of 192×40: about " in said.err
        assert "1 problem in 2 parts" in said.err
    assert saved()["data"]["init_args"]["tile"] == [40, 192]
    assert json.loads(Path("out/wide/result.json").read_text())["iterations"] == 2


@pytest.mark.slow
def test_resumed_run_keeps_its_tiles(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [*TINY[:2], *TINY[4:]]
    assert dop("recover", "photo.png", "--out", "out", "--tile", "64", "--iterations", "1", *small).status == 0
    monkeypatch.setattr(cost, "available_memory", lambda device: 2**40)
    said = dop("recover", "photo.png", "--out", "out", "--iterations", "2", *small)
    assert said.status == 0, said.err
    assert saved()["data"]["init_args"]["tile"] == 64


def test_resumed_run_keeps_whole_images(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [*TINY[:2], *TINY[4:]]
    assert dop("recover", "photo.png", "--out", "out", "--iterations", "1", *small).status == 0
    monkeypatch.setattr(cost, "available_memory", lambda device: 0)
    said = dop("recover", "photo.png", "--out", "out", "--iterations", "2", *small)
    assert said.status == 0, said.err


def test_requested_tiles_override_those_of_the_folder(folder: Path, dop) -> None:
    assert dop("recover", "photo.png", "--out", "out", "--tile", "64", *TINY).status == 0
    assert "holds another run" in dop("recover", "photo.png", "--out", "out", "--tile", "32", *TINY).err


def test_tiles_above_the_memory_limit_are_refused(folder: Path, dop) -> None:
    said = dop("recover", "photo.png", "--out", "out", "--tile", "64", "--max-memory", "500M", *TINY)
    assert said.status == 2
    assert re.search(r"max-memory must be at least \d+M for these images in tiles of 64×64 at width 2, got", said.err)


def test_four_fifths_of_free_memory_are_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(cost, "available_memory", lambda device: 1000)
    monkeypatch.setattr(cost, "choose_tile", lambda shapes, width, bf16, limit, **_: limits.append(limit))
    config()
    config("--max-memory", "3G")
    assert limits == [800, 3 * 2**30]


def test_a_range_of_other_units_is_refused(folder: Path, dop) -> None:
    np.save("kelvin.npy", np.random.default_rng(0).uniform(270, 310, (20, 24)))
    said = dop("recover", "kelvin.npy", "--range", "0", "1", "--out", "out", *TINY)
    assert said.status == 2
    assert "kelvin.npy: value_range must contain at least 10% of the values, in the units of the image" in said.err
    assert said.err.count("\n") == 1


def test_free_memory_is_the_default_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (900, 200)).save("photo.png")
    monkeypatch.setattr(cost, "available_memory", lambda device: 2**40)
    assert config()["data"]["init_args"]["tile"] == [200, 192]
    assert config("--preset", "best")["data"]["init_args"]["tile"] is None
    monkeypatch.setattr(cost, "available_memory", lambda device: 1400 * 2**20)
    assert config("--preset", "quick", "--width", "64")["data"]["init_args"]["tile"] is not None


def test_out_of_memory_gives_advice(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dop_lightning.model.signals.SkipUNet.forward", greedy)
    said = dop("recover", "photo.png", "--out", "out", *TINY)
    assert said.status == 2
    assert said.err.splitlines()[-1] == (
        "dop recover: error: photo: out of memory with 1 problem of shape (3, 70, 100); to reduce memory, "
        "recover the image in tiles (data.init_args.tile, or --tile of dop recover) or use a smaller width"
    )


# ------------------------------------------------------------------------------------------------------ kinds of damage


def test_pixels_are_corrupted_by_entry_or_as_a_whole(folder: Path) -> None:
    assert config()["model"]["corruption"]["class_path"] == "HadamardCorruption"
    assert config("--per", "pixel")["model"]["corruption"] == {
        "class_path": "PixelCorruption",
        "init_args": {"scale": 1e-5},
    }
    assert main(["recover", "photo.png", "--out", "out", "--per", "pixel", *TINY]) == 0


def test_handling_of_dense_noise_is_reported(folder: Path) -> None:
    assert config()["model"]["steps"] == {"class_path": "Refinement"}
    assert config("--dense", "keep")["model"]["steps"]["init_args"] == {"dense": "keep"}
    assert config("--dense", "remove", "--damage", "lines")["model"]["steps"]["init_args"] == {
        "damage": "lines",
        "dense": "remove",
    }


def test_undamaged_image_is_reported_by_the_command(folder: Path, dop) -> None:
    pixels = np.full((48, 48), 230, dtype=np.uint8)
    pixels[4::8] = 25
    Image.fromarray(pixels).save("lines.png")
    said = dop("recover", "lines.png", "--out", "out", "--preset", "quick", "--width", "4", "--iterations", "2")
    assert said.status == 0
    assert "lines: no corruption was detected; the image is returned unchanged" in said.err
    with Image.open("out/lines/recovered.png") as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_mask_marks_missing_entries(folder: Path, dop) -> None:
    mask = np.full((70, 100), 255, dtype=np.uint8)
    mask[10:30, 20:60] = 0
    Image.fromarray(mask).save("mask.png")
    said = dop("recover", "photo.png", "--mask", "mask.png", "--out", "out", *TINY)
    assert said.status == 0
    with Image.open("out/photo/comparison.png") as image:
        pixels = np.asarray(image)
    assert "photo: 11.4% of its values are missing" in said.err
    # missing entries are grey in the observation, which is the first panel
    assert (pixels == 128).all(axis=2).mean() > 0.01


def test_a_run_of_another_mask_is_another_run(folder: Path, dop) -> None:
    for name, rows in (("a", 10), ("b", 20)):
        mask = np.full((70, 100), 255, dtype=np.uint8)
        mask[:rows] = 0
        Image.fromarray(mask).save(f"{name}.png")
    assert dop("recover", "photo.png", "--mask", "a.png", "--out", "out", *TINY).status == 0
    err = dop("recover", "photo.png", "--mask", "b.png", "--out", "out", *TINY).err
    assert "out: the data of photo have changed since the run was started (" in err
    assert "data.mask: [" in err
    assert dop("recover", "photo.png", "--mask", "a.png", "--out", "out", *TINY).status == 0


def test_a_range_in_the_units_of_the_file(folder: Path, dop) -> None:
    values = np.random.default_rng(0).uniform(200, 300, (20, 24)).astype(np.float32)
    np.save("kelvin.npy", values)
    assert dop("recover", "kelvin.npy", "--range", "150", "350", "--out", "out", *TINY).status == 0
    recovered = np.load("out/kelvin/recovered.npy")
    assert recovered.dtype == np.float32
    assert recovered.min() >= 150
    assert recovered.max() <= 350
    assert saved()["data"]["init_args"]["value_range"] == [150.0, 350.0]


def test_several_truths_and_masks_one_each(folder: Path, dop) -> None:
    for name, size in (("a", 20), ("b", 24)):
        pixels = np.random.default_rng(size).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}.png")
        Image.fromarray(np.where(pixels < 9, 0, 255).astype(np.uint8)).save(f"{name}-mask.png")
    said = dop(
        "recover", "a.png", "b.png", "--truth", "a.png", "b.png", "--mask", "a-mask.png", "b-mask.png", "--out", "out",
        *TINY,
    )  # fmt: skip
    assert said.status == 0, said.err
    assert "PSNR" in said.out


def test_adding_photographs_does_not_change_earlier_ones(folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("another.png")
    assert main(["recover", "photo.png", "--out", "out", *TINY]) == 0
    before = {path: path.read_bytes() for path in Path("out/photo").iterdir()}
    assert main(["recover", "another.png", "photo.png", "--out", "out", *TINY]) == 0
    assert before == {path: path.read_bytes() for path in Path("out/photo").iterdir()}
    assert Path("out/another/recovered.png").is_file()
