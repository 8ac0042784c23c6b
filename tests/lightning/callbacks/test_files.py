"""The files of a problem."""

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.steps import Refinement
from dop_lightning.foundation.atomic import recorded_checksums, write_atomically
from dop_lightning.lightning.callbacks import RecoveredFiles
from dop_lightning.lightning.data.images import ImageFile
from dop_lightning.problems.noise import NoNoise
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.damage import find_damage, update_files
from dop_lightning.runs.histograms import HISTOGRAM, read_histogram
from dop_lightning.runs.results import write_result

SCORES_OF_MATRICES = {
    "loss",
    "best_iteration",
    "relative_error",
    "relative_error_corruption",
    "corruption_density",
    "true_density",
    "rank",
}
SCORES_OF_IMAGES = (SCORES_OF_MATRICES - {"rank"}) | {"input_psnr", "psnr", "best_psnr", "ssim"}
SUPPORT = {"support_precision", "support_recall"}
"""Where a support is empty, as s is after few iterations, they are not known."""
BOOKKEEPING = {
    "problem",
    "attributes",
    "seed",
    "tau",
    "alpha",
    "status",
    "iterations",
    "seconds",
    "machine",
    "files",
    "checksum",
}

PICTURES = {f"{name}.png" for name in ("observation", "recovered", "corruption", "truth", "comparison")} | {HISTOGRAM}


def strict_json(path: Path) -> dict[str, Any]:
    """JSON without the nan and Infinity that Python's reader would let pass."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{path}: {constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def save_image(path: Path, *shape: int) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_files_of_a_matrix(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(), matrices(), 100)
    for problem in run.data.problems:
        folder = tmp_path / problem.name
        files = {file.name for file in folder.iterdir() if "tfevents" not in file.name}
        assert files == {"result.json", "recovered.npy", "corruption.npy", *PICTURES}
        assert np.load(folder / "recovered.npy").shape == np.load(folder / "corruption.npy").shape == (12, 12)
        result = strict_json(folder / "result.json")
        assert set(result) - SUPPORT == BOOKKEEPING | SCORES_OF_MATRICES
        assert result["attributes"] == dict(problem.attributes)
        assert result["problem"] == problem.name
        assert (result["seed"], result["status"], result["iterations"]) == (problem.seed, "done", 100)
        assert result["tau"] == 2e-3
        assert result["alpha"] == pytest.approx(12**0.5)
        versions = {"python", "dop_lightning", "torch", "pytorch_lightning", "numpy"}
        assert set(result["machine"]) == {"device", "name", "threads", *versions}
        assert result["machine"]["device"] == "cpu"
        assert all(math.isfinite(number) for number in numbers(result))


def test_files_of_an_image(fit, image_method, images, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(), images(), 10)
    (name,) = run.table
    folder = tmp_path / name
    files = {file.name for file in folder.iterdir() if "tfevents" not in file.name}
    assert files == {"result.json", "recovered.npy", *PICTURES}
    assert set(strict_json(folder / "result.json")) - SUPPORT == BOOKKEEPING | SCORES_OF_IMAGES
    recovered = np.load(folder / "recovered.npy")
    assert recovered.shape == (1, 16, 16)
    with Image.open(folder / "recovered.png") as picture:
        assert (picture.mode, picture.size) == ("L", (16, 16))
        assert np.array_equal(np.asarray(picture), np.clip(recovered[0] * 255, 0, 255).round().astype(np.uint8))
    for name in ("observation", "corruption", "truth"):
        with Image.open(folder / f"{name}.png") as picture:
            assert (picture.mode, picture.size) == ("L", (16, 16))


def test_histogram_counts_observed_entries_of_the_corruption(tmp_path: Path) -> None:
    mask = torch.tensor([[True, True], [True, False]])
    true = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    problem = Problem("p", torch.ones(2, 2), mask=mask, true_corruption=true)
    s = torch.tensor([[0.0, -3.0], [0.1, 9.0]])
    RecoveredFiles.write_recovery(tmp_path, Outcome(problem, "done", 1, 1.0, 1.0, 1.0, torch.ones(2, 2), s))
    histogram = read_histogram(tmp_path / HISTOGRAM)
    assert (histogram.edges[0], histogram.edges[-1]) == (0.0, 4.0)
    assert [position for position, count in enumerate(histogram.found) if count] == [0, 1, 45]
    assert histogram.true is not None
    assert (sum(histogram.found), histogram.true[0], histogram.true[-1]) == (3, 2, 1)


def with_probability(tmp_path: Path) -> Outcome:
    shape = outcome(tmp_path).problem.observation.shape
    p = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return replace(outcome(tmp_path), corruption_probability=p)


def test_the_probability_is_written_as_numbers_and_as_a_picture(tmp_path: Path) -> None:
    known = with_probability(tmp_path)
    RecoveredFiles.write_recovery(tmp_path / "p", known)
    p = np.load(tmp_path / "p" / "corruption_probability.npy")
    assert p.dtype == np.float32
    assert np.array_equal(p, known.corruption_probability)
    with Image.open(tmp_path / "p" / "corruption_probability.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), (255 * p.max(axis=0)).round())


def test_outdated_probability_is_removed(tmp_path: Path) -> None:
    RecoveredFiles.write_recovery(tmp_path / "p", with_probability(tmp_path))
    RecoveredFiles.write_recovery(tmp_path / "p", outcome(tmp_path))
    assert not list((tmp_path / "p").glob("corruption_probability*"))
    RecoveredFiles.write_recovery(tmp_path / "p", with_probability(tmp_path), with_pictures=False)
    assert [path.name for path in (tmp_path / "p").glob("corruption_probability*")] == ["corruption_probability.npy"]


@pytest.mark.parametrize(
    ("tile", "image", "resize", "revealed"), [(None, "camera", 16, 2.0), (16, "chelsea", 24, 6.0)], ids=["whole", "16"]
)
def test_the_probability_survives_a_stop_to_the_bit(
    tile: int | None, image: str, resize: int, revealed: float, fit, image_method, images, tmp_path: Path
) -> None:
    method = partial(image_method, steps=Refinement(revealed=revealed, every=10, patience=None, guide=False))
    data = partial(images, images=image, resize=resize, tile=tile)
    names = ("corruption_probability.npy", "corruption_probability.png")
    fit(tmp_path / "once", method(), data(), 70)
    fit(tmp_path / "twice", method(), data(), 20)  # s is there still
    assert not list((tmp_path / "twice").rglob("corruption_probability*"))
    fit(tmp_path / "twice", method(), data(), 55, resume=True)
    (folder,) = (path.parent for path in (tmp_path / "twice").glob("*/corruption_probability.npy"))
    before = [(folder / name).read_bytes() for name in names]
    fit(tmp_path / "twice", method(), data(), 70, resume=True)
    after = [(folder / name).read_bytes() for name in names]
    assert after[0] != before[0]  # not the first look, which is the same at each time
    assert after == [(tmp_path / "once" / folder.name / name).read_bytes() for name in names]


def test_no_histogram_without_a_corruption(tmp_path: Path) -> None:
    RecoveredFiles.write_recovery(tmp_path / "p", outcome(tmp_path))
    assert not (tmp_path / "p" / HISTOGRAM).exists()


@pytest.mark.parametrize(("shape", "mode"), [((13, 9), "L"), ((9, 13, 3), "RGB")])
def test_a_recovered_image_has_size_and_mode_of_its_file(
    shape: tuple[int, ...], mode: str, fit, image_method, images, tmp_path: Path
) -> None:
    file = save_image(tmp_path / "photo.png", *shape)
    fit(tmp_path / "run", image_method(), images(images=str(file), noise=None, resize=None), 3)
    with Image.open(tmp_path / "run" / "photo" / "recovered.png") as picture:
        assert (picture.mode, picture.size) == (mode, (shape[1], shape[0]))


def outcome(tmp_path: Path, **scores: float) -> Outcome:
    source = ImageFile(save_image(tmp_path / "photo.png", 6, 5))
    problem = source.problem(NoNoise(), 3)
    return Outcome(
        problem, "done", 10, 1.5, 1.0, None, problem.observation, torch.zeros_like(problem.observation), scores
    )


def test_nonfinite_scores_are_omitted(tmp_path: Path) -> None:
    of_problem = outcome(tmp_path, loss=math.inf, psnr=math.nan, ssim=-math.inf, corruption_density=0.25)
    write_result(tmp_path, of_problem, {"best_psnr": math.inf, "best_iteration": 4}, {"device": "cpu"})
    result = strict_json(tmp_path / "result.json")
    assert set(result) == BOOKKEEPING | {"corruption_density", "best_iteration"}
    assert result["alpha"] is None


def test_files_are_never_partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photo"
    RecoveredFiles.write_recovery(folder, outcome(tmp_path))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        RecoveredFiles.write_recovery(folder, outcome(tmp_path))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_result_is_written_last(fit, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it exists, so do the others: readers may rely on it."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("dop_lightning.lightning.callbacks.files.encode_pixels", fail)
    with pytest.raises(OSError, match="no space left"):
        fit(tmp_path, matrix_method(), matrices(), 100)
    assert list(tmp_path.rglob("result.json")) == []


def test_result_of_a_longer_run_replaces_the_earlier(fit, matrix_method, matrices, tmp_path: Path) -> None:
    fit(tmp_path, matrix_method(), matrices(), 100)
    run = fit(tmp_path, matrix_method(), matrices(), 200, resume=True)
    assert run.iterations == [200] * 3


def test_pictures_are_the_same_on_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RecoveredFiles.write_recovery(tmp_path / "one", outcome(tmp_path))
    monkeypatch.setattr("dop_lightning.lightning.callbacks.files.LARGE_PICTURE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    RecoveredFiles.write_recovery(tmp_path / "two", outcome(tmp_path))
    for file in (tmp_path / "one").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["result.json", "recovered.npy", "recovered.png", "histogram.csv"])
def test_damaged_files_are_reported_and_rewritten(
    name: str, fit, matrix_method, matrices, tmp_path: Path, capsys
) -> None:
    fit(tmp_path, matrix_method(), matrices(), 100)
    file = next(tmp_path.glob(f"*/{name}"))
    before = file.read_bytes()
    flip(file)
    capsys.readouterr()
    fit(tmp_path, matrix_method(), matrices(), 100, resume=True)
    assert re.search(rf"^{re.escape(str(file))}: .*damaged.*: rewriting it$", capsys.readouterr().err, re.MULTILINE)
    if name == "result.json":
        assert strict_json(file)["files"] == json.loads(before)["files"]
    else:
        assert file.read_bytes() == before
    fit(tmp_path, matrix_method(), matrices(), 100, resume=True)
    assert "rewriting it" not in capsys.readouterr().err


def test_a_prediction_updates_the_checksums_of_the_files_that_it_writes(fit, matrix_method, matrices, tmp_path) -> None:
    fit(tmp_path, matrix_method(), matrices(), 100)
    folder = next(tmp_path.glob("*/result.json")).parent
    (folder / "recovered.npy").write_bytes(b"other")
    with recorded_checksums() as files:
        write_atomically(folder / "recovered.npy", lambda file: file.write(b"another"))
    assert [damage.path.name for damage in find_damage(tmp_path, folder.name)] == ["recovered.npy"]
    update_files(folder, files)
    assert not find_damage(tmp_path, folder.name)


def test_damaged_files_of_tiles_and_their_image_are_rewritten(fit, image_method, images, tmp_path, capsys) -> None:
    data = partial(images, images="chelsea", resize=24, tile=16)
    fit(tmp_path, image_method(), data(), 10)
    whole = next(file for file in tmp_path.glob("*/recovered.png"))
    tile = next(file for file in tmp_path.rglob("corruption.npy"))
    before = {file: file.read_bytes() for file in (whole, tile)}
    for file in before:
        flip(file)
    capsys.readouterr()
    fit(tmp_path, image_method(), data(), 10, resume=True)
    said = capsys.readouterr().err
    for file, content in before.items():
        assert f"{file}: damaged, its checksum differs: rewriting it" in said
        assert file.read_bytes() == content
