"""Images of files and samples × noises × seeds."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.images.formats import LoadedImage, read_image
from dop_lightning.lightning.data import ImageDataModule
from dop_lightning.lightning.data.images import ImageFile
from dop_lightning.problems.noise import GrossOutliers, RandomValuedImpulse, SaltAndPepper
from dop_lightning.problems.problem import Problem


def problems(images: Any, **options: Any) -> list[Problem]:
    data = ImageDataModule(images, **options)
    data.setup()
    return data.problems


def save(path: Path, *shape: int, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


def test_a_clean_image_and_noise_make_a_problem_with_truth() -> None:
    (problem,) = problems("camera", noise=SaltAndPepper(0.5), resize=32)
    assert problem.name == "camera-salt-and-pepper-0.5-seed0"
    assert problem.observation.shape == problem.signal_shape == (1, 32, 32)
    assert problem.data_range == 1.0
    expected = {"image": "camera", "noise": "salt_and_pepper", "ratio": 0.5, "per": "entry", "low": 0.0, "high": 1.0}
    assert problem.attributes == expected
    assert problem.truth.min() >= 0
    assert problem.truth.max() <= 1
    hit = problem.true_corruption != 0
    assert set(problem.observation[hit].tolist()) == {0.0, 1.0}
    assert torch.equal(problem.observation[~hit], problem.truth[~hit])


def test_images_noises_and_seeds_in_this_order(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{name}.png", 9, 7) for name in ("b", "a")]
    found = problems(files, noise=[SaltAndPepper(0.1), RandomValuedImpulse(0.2)], seeds=[2, 0])
    assert [p.name for p in found] == [
        f"{name}-{noise}-seed{seed}"
        for name in "ba"
        for noise in ("salt-and-pepper-0.1", "random-valued-impulse-0.2")
        for seed in (2, 0)
    ]


def test_file_without_noise_is_unchanged(tmp_path: Path) -> None:
    file = save(tmp_path / "photo.png", 9, 7, 3)
    (problem,) = problems(file)
    assert problem.name == "photo"
    assert torch.equal(problem.observation, read_image(file).values)
    assert problem.truth is problem.true_corruption is problem.mask is None
    assert problem.attributes == {"image": "photo"}
    assert isinstance(problem.source, ImageFile)
    assert (problem.source.format.mode, problem.source.format.size) == ("RGB", (9, 7))


def test_studies_are_paired() -> None:
    few, many, gross = problems(
        "camera", noise=[SaltAndPepper(0.1), SaltAndPepper(0.5), GrossOutliers(0.1)], seeds=[3], resize=16
    )
    assert torch.equal(few.truth, many.truth)
    assert torch.equal(few.truth, gross.truth)
    hit = few.true_corruption != 0
    assert torch.equal(few.observation[hit], many.observation[hit])
    (alone,) = problems("camera", noise=SaltAndPepper(0.1), seeds=[3], resize=16)
    assert torch.equal(alone.observation, few.observation)


def test_the_same_seed_draws_the_same_noise_for_every_image(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.png", 9, 7, seed=k) for k in range(2)]
    one, other = problems(files, noise=SaltAndPepper(0.5))
    at_random = (one.observation == 0) | (one.observation == 1)
    assert (one.observation[at_random] == other.observation[at_random]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 10, 20)),
        ({"resize": 8}, (3, 4, 8)),
        ({"resize": (5, 6)}, (3, 5, 6)),
        ({"resize": [5, 6]}, (3, 5, 6)),
        ({"crop": 4}, (3, 4, 4)),
        ({"crop": (3, 5)}, (3, 3, 5)),
        ({"resize": 8, "crop": 2}, (3, 2, 2)),
        ({"channels": "grey"}, (1, 10, 20)),
        ({"channels": "rgb"}, (3, 10, 20)),
    ],
)
def test_size_and_channels(options: dict[str, Any], shape: tuple[int, ...], tmp_path: Path) -> None:
    (problem,) = problems(save(tmp_path / "a.png", 10, 20, 3), **options)
    assert tuple(problem.observation.shape) == shape


def test_one_truth_for_all_files_or_one_each(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.png", 9, 7, seed=k) for k in range(3)]
    truths = [save(tmp_path / "truth" / f"{k}.png", 9, 7, seed=10 + k) for k in range(3)]
    for problem, truth in zip(problems(files, truth=truths), truths, strict=True):
        assert torch.equal(problem.truth, read_image(truth).values)
        assert torch.equal(problem.true_corruption, problem.observation - problem.truth)
    for problem in problems(files, truth=truths[1]):
        assert torch.equal(problem.truth, read_image(truths[1]).values)
    with pytest.raises(ValueError, match=r"truth must be one file for all, or one per file \(3\), got 2"):
        problems(files, truth=truths[:2])


def test_a_truth_is_resized_with_its_image(tmp_path: Path) -> None:
    file, truth = save(tmp_path / "a.png", 9, 7, 3), save(tmp_path / "t.png", 9, 7, 3, seed=1)
    (problem,) = problems(file, truth=truth, resize=(4, 4), channels="grey")
    assert problem.truth.shape == (1, 4, 4)


@pytest.mark.parametrize(("shape", "told"), [((7, 9), "9×7 with 1 channel$"), ((9, 7, 3), "7×9 with 3 channels$")])
def test_a_truth_that_does_not_fit_is_refused(shape: tuple[int, ...], told: str, tmp_path: Path) -> None:
    file, truth = save(tmp_path / "a.png", 9, 7), save(tmp_path / "t.png", *shape)
    with pytest.raises(ValueError, match=f"t.png: the truth must have the size and channels of .*a.png, .*got {told}"):
        problems(file, truth=truth)


def test_images_of_one_size_may_share_a_batch(tmp_path: Path) -> None:
    files = [save(tmp_path / name, *shape) for name, shape in (("a.png", (9, 7)), ("b.png", (7, 9)), ("c.png", (9, 7)))]
    for size, expected in ((1, [["a"], ["c"], ["b"]]), (None, [["a", "c"], ["b"]])):
        data = ImageDataModule(files, batch_size=size)
        data.setup()
        assert [batch.names for batch in data.batches] == expected
    assert ImageDataModule(files).batch_size == 1


def test_folders_patterns_and_samples(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        save(tmp_path / "in" / name, 4, 4) if name != "notes.txt" else (tmp_path / "in" / name).write_text("x")
    assert [p.name for p in problems(str(tmp_path / "in"))] == ["a", "b"]
    assert [p.name for p in problems([str(tmp_path / "in" / "*.png"), "camera"], resize=8)] == ["b", "camera"]


def test_files_with_equal_names_are_distinguished(tmp_path: Path) -> None:
    files = [save(tmp_path / folder / "a.png", 4, 4) for folder in ("x", "y")]
    assert [p.name for p in problems(files)] == ["a", "a-2"]
    assert len({p.name for p in problems(files, noise=SaltAndPepper(0.1), seeds=2)}) == 4


def test_mask_and_transparency_mark_missing_entries(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (9, 7, 4), dtype=np.uint8)
    pixels[0, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.full((9, 7), 255, np.uint8)
    mask[:, 2] = 0
    Image.fromarray(mask).save(tmp_path / "m.png")
    seen = np.ones((9, 7), dtype=bool)
    seen[0] = False
    (alone,) = problems(str(tmp_path / "a.png"))
    assert np.array_equal(alone.mask.numpy(), np.broadcast_to(seen, (3, 9, 7)))
    seen[:, 2] = False
    (both,) = problems(str(tmp_path / "a.png"), mask=str(tmp_path / "m.png"))
    assert np.array_equal(both.mask.numpy(), np.broadcast_to(seen, (3, 9, 7)))
    assert not both.observation[~both.mask].any()
    (noisy,) = problems(str(tmp_path / "a.png"), mask=str(tmp_path / "m.png"), noise=SaltAndPepper(0.5))
    assert torch.equal(noisy.mask, both.mask)
    assert noisy.truth is None  # what was never seen is no truth


def test_mask_and_transparency_without_observed_entries_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((4, 4), np.uint8)
    mask[2:] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(
        ValueError, match=r"m.png: the mask must leave at least one observed entry of .*a.png, got none"
    ):
        problems(str(tmp_path / "a.png"), mask=str(tmp_path / "m.png"))


def test_the_truth_is_in_the_range_of_its_image(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.linspace(0, 50, 63, dtype=np.float32).reshape(9, 7))
    np.save(tmp_path / "t.npy", np.full((9, 7), 25, dtype=np.float32))
    for options, middle in (({}, 0.5), ({"value_range": (0, 100)}, 0.25)):
        (problem,) = problems(str(tmp_path / "a.npy"), truth=str(tmp_path / "t.npy"), **options)
        assert problem.data_range == 1.0
        torch.testing.assert_close(problem.truth, torch.full((1, 9, 7), middle), atol=0.01, rtol=0)


def test_outliers_outside_the_range_are_clamped(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 63, dtype=np.float32).reshape(9, 7)
    values[3, 3], values[5, 2], values[6, 6] = 1e30, -1e30, 1.2
    np.save(tmp_path / "a.npy", values)
    (problem,) = problems(str(tmp_path / "a.npy"), value_range=(0, 1))
    y = problem.observation[0]
    assert (y[3, 3], y[5, 2]) == (1.5, -0.5)
    assert y[6, 6] == np.float32(1.2)


def test_unwritable_formats_are_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise TypeError("no such samples")

    file = save(tmp_path / "a.png", 9, 7)
    monkeypatch.setattr("dop_lightning.images.formats.image_files.write_raster", fails)
    with pytest.raises(ValueError, match=r"a.png: images of this kind cannot be written \(no such samples\)"):
        problems(file)


def test_a_truth_with_gaps_is_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 63).reshape(9, 7)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "t.npy", np.where(values > 0.9, np.nan, values))
    with pytest.raises(ValueError, match=r"t.npy: the truth must be complete, got 7 NaN or transparent"):
        problems(str(tmp_path / "a.npy"), truth=str(tmp_path / "t.npy"))


def test_only_larger_images_are_cut(tmp_path: Path) -> None:
    files = [save(tmp_path / "small.png", 16, 16), save(tmp_path / "large.png", 20, 30)]
    data = ImageDataModule(files, noise=SaltAndPepper(0.3), tile=16, overlap=4, batch_size=None)
    data.setup()
    large = "large-salt-and-pepper-0.3-seed0"
    assert [whole.name for whole in data.wholes] == ["small-salt-and-pepper-0.3-seed0", large]
    assert list(data.mosaics) == [large]
    assert len(data.problems) == 1 + 2 * 3
    whole = data.mosaics[large].whole
    for place, tile in data.mosaics[large].tiles.items():  # corrupted first, then cut
        assert torch.equal(tile.observation, whole.observation[:, *data.mosaics[large].grid.window(*place)])
    assert sorted(len(batch) for batch in data.batches) == [7]


@pytest.mark.parametrize(
    ("images", "options", "named"),
    [
        ("nowhere.png", {}, "nowhere.png"),
        ("camera", {"channels": "blue"}, "channels must be one of as_is, grey, rgb, got 'blue'"),
        ("camera", {"resize": 0}, "resize must be a whole number of at least 1, got 0"),
        ("camera", {"crop": 100_000}, "crop must be at most the image"),
        ("camera", {"truth": "camera", "noise": SaltAndPepper(0.1)}, "truth cannot be combined with noise"),
        ("camera", {"tile": 7}, "tile must be a whole number of at least 8, got 7"),
        ("camera", {"tile": 16, "overlap": 9}, "overlap must be at most half of tile, 8, got 9"),
        ("camera", {"overlap": 9}, "overlap requires tile, got overlap 9 without tile"),
        ("camera", {"mask": "nowhere.png"}, "nowhere.png"),
        ("camera", {"value_range": (1.0, 0.0)}, "value_range"),
        ([], {}, "at least one entry, got none"),
    ],
)
def test_mistakes_are_reported(images: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        problems(images, **options)


def test_images_are_not_kept_in_memory(tmp_path: Path) -> None:
    def large() -> int:
        gc.collect()
        return sum(isinstance(held, LoadedImage) or getattr(held, "shape", None) == (3, 16, 17) for held in objects())

    def objects() -> list[object]:
        return [held for held in gc.get_objects() if isinstance(held, LoadedImage | torch.Tensor)]

    files = [save(tmp_path / f"{k}.png", 16, 17, 3, seed=k) for k in range(3)]
    before = large()
    data = ImageDataModule(files, noise=SaltAndPepper(0.3), seeds=2, tile=8)
    data.setup()
    assert large() == before
    alone = ImageDataModule(files[2], noise=SaltAndPepper(0.3), seeds=[1])
    alone.setup()
    assert torch.equal(data.wholes[-1].observation, alone.wholes[0].observation)
    assert torch.equal(data.wholes[-1].truth, alone.wholes[0].truth)
    assert data.wholes[-1].source.format == alone.wholes[0].source.format
    assert torch.equal(data.problems[-1].observation, alone.wholes[0].observation[:, 8:, 9:])


def test_an_image_that_changes_during_a_run_is_refused(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.png", 9, 7, seed=k) for k in range(2)]
    data = ImageDataModule(files)
    data.setup()
    save(tmp_path / "1.png", 9, 7, seed=5)
    assert torch.equal(data.problems[0].observation, read_image(files[0]).values)
    with pytest.raises(ValueError, match=r"^1: the file has changed since the run started"):
        _ = data.batches[1].observation
