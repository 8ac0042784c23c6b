"""Events of each problem, read back."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dop_lightning.callbacks import ProblemTensorBoard
from dop_lightning.scoring import CURVES


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(read: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read.Scalars(tag)]


def images_at(read: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in read.Images(tag)]


def test_problems_have_the_same_tags(fit, image_method, images, tmp_path: Path) -> None:
    data = images(images=["camera", "coffee"], seeds=2)
    run = fit(tmp_path, image_method(evaluate_every=5), data, 10)
    assert len(run.table) == 4
    for name in run.table:
        read = events(tmp_path / name)
        assert set(read.Tags()["scalars"]) == set(CURVES)
        assert set(read.Tags()["images"]) == {"observation", "recovered", "corruption"}


def test_curves_are_those_of_the_metrics(fit, matrix_method, matrices, tmp_path: Path) -> None:
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


def test_only_the_first_problems_have_pictures_on_the_way(
    make_trainer, matrix_method, matrices, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, 300)
    callback = ProblemTensorBoard(images_every=1, most_pictures=1)
    trainer.callbacks = [callback if isinstance(c, ProblemTensorBoard) else c for c in trainer.callbacks]
    data = matrices()
    trainer.fit(matrix_method(), datamodule=data)
    first, *others = [images_at(events(tmp_path / problem.name), "recovered") for problem in data.problems]
    assert set(first) == {200, 300}
    assert others == [[300], [300]]


def test_a_resumed_run_hides_what_came_after_the_checkpoint(fit, matrix_method, matrices, tmp_path: Path) -> None:
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


def test_only_the_first_problems_hold_files_open(make_trainer, matrix_method, matrices, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 100)
    callback = ProblemTensorBoard(most_runs=2)
    trainer.callbacks = [callback if isinstance(c, ProblemTensorBoard) else c for c in trainer.callbacks]
    data = matrices(batch_size=1)
    trainer.fit(matrix_method(), datamodule=data)
    followed = [problem.name for problem in data.problems if list((tmp_path / problem.name).glob("*tfevents*"))]
    assert followed == [problem.name for problem in data.problems[:2]]


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="images_every must be a whole number of at least 0, got -1"):
        ProblemTensorBoard(images_every=-1)
    with pytest.raises(ValueError, match="most_pictures must be a whole number of at least 0, got -1"):
        ProblemTensorBoard(most_pictures=-1)
    with pytest.raises(ValueError, match="most_runs must be a whole number of at least 0, got -1"):
        ProblemTensorBoard(most_runs=-1)
