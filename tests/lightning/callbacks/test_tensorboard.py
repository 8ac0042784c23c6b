"""Events of each problem, read back."""

import csv
import io
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import AtomicCounter

from dop_lightning.foundation.spread import spread
from dop_lightning.images.pictures import MISSING_GREY, colour_limit, heatmap
from dop_lightning.lightning.callbacks import ProblemTensorBoard
from dop_lightning.lightning.callbacks.checkpoint import LAST
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.problems.noise import GrossOutliers, MissingEntries, Mixture
from dop_lightning.problems.scoring import CURVES


@pytest.fixture(autouse=True)
def few_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read by the number of their writer in this process, as text: 10 comes before 9."""
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", AtomicCounter(0))


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(read: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read.Scalars(tag)]


def images_at(read: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in read.Images(f"view_{tag}")]


def test_problems_have_the_same_tags(fit, image_method, images, tmp_path: Path) -> None:
    data = images(images=["camera", "coffee"], seeds=2)
    run = fit(tmp_path, image_method(evaluate_every=5), data, 10)
    assert len(run.table) == 4
    for name in run.table:
        read = events(tmp_path / name)
        assert set(read.Tags()["scalars"]) == set(CURVES)
        assert set(read.Tags()["images"]) == {"view_observation", "view_recovered", "view_corruption"}


def test_curves_equal_the_metrics(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(), matrices(), 500)
    for name in run.table:
        read = events(tmp_path / name)
        assert set(read.Tags()["scalars"]) == {"relative_error", "loss", "corruption_density"}
        for tag in read.Tags()["scalars"]:
            expected = [(row[1], float(row[3])) for row in run.metrics if row[0] == name and row[2] == tag]
            assert [step for step, _ in expected] == [200, 400, 500]
            found = scalars(read, tag)
            assert [step for step, _ in found] == [200, 400, 500]
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)


@pytest.mark.parametrize(("every", "at"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (10, [5])])
def test_pictures_every_few_evaluations_and_at_the_end(
    every: int, at: list[int], make_trainer, image_method, images, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, 5)
    callback = ProblemTensorBoard(images_every=every)
    trainer.callbacks = [callback if isinstance(c, ProblemTensorBoard) else c for c in trainer.callbacks]
    data = images()
    trainer.fit(image_method(evaluate_every=1, block=1), datamodule=data)
    read = events(tmp_path / data.problems[0].name)
    assert images_at(read, "recovered") == at
    assert images_at(read, "corruption") == at
    assert images_at(read, "observation") == [0]


def test_only_some_followed_problems_have_intermediate_pictures(
    make_trainer, matrix_method, matrices, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, 300)
    callback = ProblemTensorBoard(images_every=1, most_pictures=1, most_runs=3)
    trainer.callbacks = [callback if isinstance(c, ProblemTensorBoard) else c for c in trainer.callbacks]
    data = matrices(seeds=9)
    trainer.fit(matrix_method(), datamodule=data)
    followed = [data.problems[position].name for position in spread(9, 3)]
    pictures = [images_at(events(tmp_path / name), "recovered") for name in followed]
    assert pictures == [[300], [200, 300], [300]]


def test_resumed_run_hides_values_after_the_checkpoint(fit, matrix_method, matrices, tmp_path: Path) -> None:
    fit(tmp_path, matrix_method(evaluate_every=100), matrices(seeds=1), 300)
    (tmp_path / "checkpoints").rename(tmp_path / "kept")
    fit(tmp_path, matrix_method(evaluate_every=100), matrices(seeds=1), 600)  # lost in a crash
    (tmp_path / "checkpoints" / "last.ckpt").rename(tmp_path / "lost")
    (tmp_path / "kept" / "last.ckpt").rename(tmp_path / "checkpoints" / "last.ckpt")
    run = fit(tmp_path, matrix_method(evaluate_every=100), matrices(seeds=1), 500, resume=True)
    (name,) = run.table
    steps = [step for step, _ in scalars(events(tmp_path / name), "loss")]
    assert steps[-2:] == [400, 500]
    assert 600 not in steps


def test_evaluations_before_resuming_are_kept(fit, stop_at, matrix_method, matrices, tmp_path: Path) -> None:
    method, data = partial(matrix_method, evaluate_every=200), partial(matrices, seeds=1)
    fit(tmp_path, method(), data(), 400)
    fit(tmp_path, method(), data(), 800, stop_at(500), resume=True)
    run = fit(tmp_path, method(), data(), 800, resume=True)
    (name,) = run.table
    assert [step for step, _ in scalars(events(tmp_path / name), "loss")] == [200, 400, 600, 800]


def test_restart_without_a_checkpoint_hides_the_earlier_run(fit, matrix_method, matrices, tmp_path: Path) -> None:
    method, data = partial(matrix_method, evaluate_every=100), partial(matrices, seeds=1)
    fit(tmp_path, method(), data(), 300)
    run = fit(tmp_path, method(), data(), 200)
    (name,) = run.table
    assert [step for step, _ in scalars(events(tmp_path / name), "loss")] == [100, 200]


def followed(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("*/events.out.tfevents.*")}


def test_resumed_run_follows_the_same_sample(make_trainer, matrix_method, matrices, tmp_path: Path) -> None:
    def fit(folder: Path, steps: int, checkpoint: Path | None = None, **options: Any) -> list[str]:
        trainer = make_trainer(folder, steps)
        callback = ProblemTensorBoard(most_runs=4)
        trainer.callbacks = [callback if isinstance(c, ProblemTensorBoard) else c for c in trainer.callbacks]
        data = matrices(noise=[GrossOutliers(0.1), GrossOutliers(0.2)], seeds=6, **options)
        trainer.fit(matrix_method(), datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return [problem.name for problem in data.problems]

    names = fit(tmp_path / "a", 100)
    chosen = {names[position] for position in spread(12, 4)}
    assert followed(tmp_path / "a") == chosen
    fit(tmp_path / "a", 200, tmp_path / "a" / LAST)
    assert followed(tmp_path / "a") == chosen
    fit(tmp_path / "b", 100, batch_size=1)
    assert followed(tmp_path / "b") == chosen
    assert {row["problem"] for row in rows(tmp_path / "a" / "metrics.csv")} == set(names)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_are_open_from_the_start_to_the_end_and_closed_after_an_error(
    make_trainer, matrix_method, matrices, tmp_path: Path
) -> None:
    class Fails(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
            assert len(followed(tmp_path)) == 3  # before anything was evaluated
            raise RuntimeError("on purpose")

    trainer = make_trainer(tmp_path, 100, Fails())
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.fit(matrix_method(), datamodule=matrices())
    assert threading.active_count() == threads


def picture(folder: Path, tag: str) -> np.ndarray:
    (image,) = events(folder).Images(f"view_{tag}")
    return np.array(Image.open(io.BytesIO(image.encoded_image_string)))


def test_pictures_of_a_matrix_have_the_colours_of_its_files(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(), matrices(seeds=1), 100)
    (name,) = run.table
    for tag in ("recovered", "corruption"):
        assert np.array_equal(picture(tmp_path / name, tag), np.array(Image.open(tmp_path / name / f"{tag}.png")))
    problem = run.data.problems[0]
    expected = heatmap(problem.observation, colour_limit(problem.truth))
    assert np.array_equal(picture(tmp_path / name, "observation"), expected)


def test_missing_entries_are_grey(fit, matrix_method, matrices, tmp_path: Path) -> None:
    data = matrices(noise=Mixture([GrossOutliers(0.1), MissingEntries(0.5)]), seeds=1)
    run = fit(tmp_path, matrix_method(), data, 100)
    (name,) = run.table
    pixels = picture(tmp_path / name, "observation")
    assert np.array_equal((pixels == MISSING_GREY).all(axis=-1), ~data.problems[0].mask.numpy())


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="images_every must be a whole number of at least 0, got -1"):
        ProblemTensorBoard(images_every=-1)
    with pytest.raises(ValueError, match="most_pictures must be a whole number of at least 0, got -1"):
        ProblemTensorBoard(most_pictures=-1)
    with pytest.raises(ValueError, match="most_runs must be a whole number of at least 0, got -1"):
        ProblemTensorBoard(most_runs=-1)


@pytest.mark.parametrize("tile", [None, 16])
def test_large_pictures_are_reduced(
    tile: int | None, fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dop_lightning.lightning.callbacks.tensorboard.MAX_SIDE", 12)
    monkeypatch.setattr("dop_lightning.lightning.callbacks.tensorboard.MAX_TILE_SIDE", 6)
    fit(tmp_path, image_method(), images(resize=16 if tile is None else 32, tile=tile), 2)
    files = sorted(tmp_path.rglob("events.out.*"))
    assert files
    for file in files:
        read = events(file.parent)
        for tag in read.Tags()["images"]:
            for event in read.Images(tag):
                limit = 12 if tile is None else 6
                assert max(event.width, event.height) <= limit
                assert max(event.width, event.height) > limit // 2


def test_measurements_have_no_picture(
    fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dop_lightning.lightning.callbacks.tensorboard.MAX_SIDE", 12)
    fit(tmp_path, image_method(), images(sensing=GaussianMeasurements(200), noise=GrossOutliers(0.1)), 2)
    (file,) = tmp_path.rglob("events.out.*")
    read = events(file.parent)
    assert "view_observation" not in read.Tags()["images"]
    assert all(event.width <= 12 for event in read.Images("view_recovered"))
