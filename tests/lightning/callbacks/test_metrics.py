"""``metrics.csv``, and the best that was seen."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dop_lightning.engine.state import Evaluation
from dop_lightning.lightning.callbacks import RecoveryMetrics
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import CURVES
from tests.lightning.callbacks.builders import look_at


def test_every_problem_has_one_row_per_tag_at_each_evaluation(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(block=70), matrices(seeds=2), 450)
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["problem", "iteration", "tag", "value"]
    found = [row[:3] for row in run.metrics]
    tags = ("loss", "corruption_density", "relative_error")
    expected = [(name, k, tag) for k in (200, 400, 450) for name in run.table for tag in tags]
    assert found == expected
    for name, iteration, tag, value in run.metrics:
        if iteration == 450:
            assert float(value) == pytest.approx(float(run.table[name][tag]), rel=1e-5)


def test_images_have_all_tags(fit, image_method, images, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(evaluate_every=5), images(), 10)
    assert {tag for _, _, tag, _ in run.metrics} == set(CURVES)


def test_resumed_run_truncates_rows_after_the_checkpoint(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(), matrices(), 400)
    until_400 = run.metrics
    name = next(iter(run.table))
    with (tmp_path / "checkpoints" / "curves" / "batch-0000.csv").open("a", encoding="utf-8") as file:
        file.write(f"{name},600,loss,1.5\nsomebody,200,loss,1.5\n{name},800,lo")  # a crash during the write
    resumed = fit(tmp_path, matrix_method(), matrices(), 800, resume=True)
    assert resumed.metrics[: len(until_400)] == until_400
    assert {row[1] for row in resumed.metrics[len(until_400) :]} == {600, 800}
    at_once = fit(tmp_path / "once", matrix_method(), matrices(), 800)
    assert resumed.metrics == at_once.metrics


def test_new_run_starts_a_new_file(fit, matrix_method, matrices, tmp_path: Path) -> None:
    first = fit(tmp_path, matrix_method(), matrices(), 400).metrics
    assert fit(tmp_path, matrix_method(), matrices(), 400).metrics == first


def test_best_of_an_image_is_the_highest_psnr(fit, image_method, images, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(corruption=None, evaluate_every=5), images(), 60)
    (row,) = run.table.values()
    curve = {iteration: float(value) for _, iteration, tag, value in run.metrics if tag == "psnr"}
    best = max(curve, key=lambda iteration: curve[iteration])
    assert best < 60
    assert int(row["best_iteration"]) == best
    assert float(row["best_psnr"]) == pytest.approx(curve[best], rel=1e-5)
    assert float(row["psnr"]) == pytest.approx(curve[60], rel=1e-5)


@pytest.fixture
def show(tmp_path: Path):
    """Shows a callback one score of a problem at one evaluation after the other."""
    trainer: Any = SimpleNamespace(default_root_dir=tmp_path, world_size=1)
    module: Any = SimpleNamespace(evaluate_every=10, roster=SimpleNamespace(label_of=lambda name: "batch-0000"))
    (tmp_path / "checkpoints" / "curves").mkdir(parents=True)
    problems = ProblemBatch([Problem("a", torch.zeros(2, 2))])

    def show(metrics: RecoveryMetrics, tag: str, curve: dict[int, float]) -> None:
        for iteration, value in curve.items():
            evaluation = Evaluation(iteration, torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), torch.zeros(1))
            metrics.on_evaluation(trainer, module, look_at(problems, evaluation, [{"loss": 1.0, tag: value}]))

    return show


def test_best_of_a_matrix_is_the_least_error(show) -> None:
    metrics = RecoveryMetrics()
    show(metrics, "relative_error", {10: 0.9, 20: 0.2, 30: 0.5, 40: 0.2})
    assert metrics.best("a", 45, {"relative_error": 0.3}) == {"best_iteration": 20}
    assert metrics.best("a", 45, {"relative_error": 0.1}) == {"best_iteration": 45}
    assert metrics.problem_state("a") == {"least_error": -0.2, "best_iteration": 20}


def test_last_evaluation_off_the_grid_counts_for_this_run_only(show) -> None:
    metrics = RecoveryMetrics()
    show(metrics, "psnr", {10: 20.0, 20: 19.0, 27: 25.0})
    assert metrics.best("a", 27, {"psnr": 25.0}) == {"best_psnr": 25.0, "best_iteration": 27}
    longer = RecoveryMetrics()
    longer.load_problem_state("a", metrics.problem_state("a"))
    show(longer, "psnr", {30: 21.0, 40: 20.0})
    assert longer.best("a", 40, {"psnr": 20.0}) == {"best_psnr": 21.0, "best_iteration": 30}


def test_no_best_without_truth(fit, image_method, images, tmp_path: Path) -> None:
    run = fit(tmp_path, image_method(evaluate_every=5), images(noise=None), 10)
    (row,) = run.table.values()
    assert {tag for _, _, tag, _ in run.metrics} == {"loss", "corruption_density"}
    assert row["best_psnr"] == row["best_iteration"] == row["psnr"] == ""


def test_best_is_stored_per_problem() -> None:
    metrics = RecoveryMetrics()
    metrics.load_problem_state("a", {"best_psnr": 30.0, "best_iteration": 5})
    metrics.load_problem_state("b", {"least_error": -0.1, "best_iteration": 7})
    metrics.load_problem_state("c", {})
    assert metrics.best("a", 9, {"psnr": 29.0}) == {"best_psnr": 30.0, "best_iteration": 5}
    assert metrics.best("b", 9, {}) == {"best_iteration": 7}
    assert metrics.best("c", 9, {}) == metrics.best("unheard of", 9, {"loss": 1.0}) == {}
    assert metrics.problem_state("a") == {"best_psnr": 30.0, "best_iteration": 5}
    assert metrics.problem_state("unheard of") == {}
