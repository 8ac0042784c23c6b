"""A problem that ends where its outputs changed least: on made-up outputs, and in whole runs."""

import csv
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.state import Evaluation
from dop_lightning.lightning.callbacks import StableOutput, VarianceStopping
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.lightning.callbacks.builders import look_at

EVERY = 5


def lingers(t: int, at: int) -> Tensor:
    """Comes, slows down until an iteration, and leaves."""
    return torch.full((2, 2), 1.0 + ((t - at) / 50) ** 3)


def ends(callback: VarianceStopping, at: dict[str, int], until: int = 400, start: int = EVERY) -> dict[str, tuple]:
    """Show the callback evaluations of problems by name; when it ends each, and the iteration that it goes back to."""
    ended: dict[str, tuple[int, int]] = {}
    for t in range(start, until + 1, EVERY):
        names = [name for name in at if name not in ended]
        if not names:
            break
        problems = ProblemBatch([Problem(name, torch.zeros(2, 2)) for name in names])
        state = SimpleNamespace(problems=problems, problem_state=lambda k, t=t: {"made": t})

        def stop(name: str, status: str, state: dict[str, int], t: int = t) -> None:
            assert status == "stable"
            assert state["made"] == state["iteration"]
            ended[name] = (t, state["iteration"])

        module: Any = SimpleNamespace(evaluate_every=EVERY, stop_problem=stop)
        X = torch.stack([lingers(t, at[name]) for name in names])
        evaluation = Evaluation(t, X, torch.zeros_like(X), torch.zeros(len(names)))
        callback.on_evaluation(None, module, look_at(problems, evaluation, state=state))  # type: ignore[arg-type]
    return ended


@pytest.mark.parametrize("variance", ["windowed", "exponential"])
def test_window_and_patience_are_iterations(variance) -> None:
    callback = VarianceStopping(variance, window=20, patience=60)
    ((stopped, taken),) = ends(callback, {"a": 100}).values()
    assert stopped == taken + 60
    assert 105 <= taken <= 125  # the window ends after the middle of what lingers


def test_no_stop_by_default() -> None:
    assert ends(VarianceStopping(), {"a": 100}) == {}


def test_problems_are_evaluated_separately() -> None:
    make = partial(VarianceStopping, "windowed", window=20, patience=60)
    at = {"a": 150, "b": 60, "c": 100}
    together = ends(make(), at)
    assert len(set(together.values())) == 3
    for name in at:
        assert ends(make(), {name: at[name]}) == {name: together[name]}


def test_an_evaluation_out_of_turn_does_not_count() -> None:
    callback = VarianceStopping("windowed", window=10)
    module: Any = SimpleNamespace(evaluate_every=EVERY, stop_problem=pytest.fail)
    evaluation = Evaluation(437, torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.zeros(1))
    callback.on_evaluation(None, module, look_at(ProblemBatch([Problem("a", torch.zeros(2, 2))]), evaluation))  # type: ignore[arg-type]
    assert callback.problem_state("a") == {}


@pytest.mark.parametrize("variance", ["windowed", "exponential"])
@pytest.mark.parametrize("breaks", [5, 15, 20, 90, 105, 120, 150])
def test_state_resumes_in_another_process(breaks: int, variance) -> None:
    make = partial(VarianceStopping, variance, window=20, patience=60)
    undisturbed = ends(make(), {"a": 100})
    before, between, after = make(), make(), make()
    assert ends(before, {"a": 100}, until=breaks) == {}
    between.load_problem_state("a", before.problem_state("a"))
    after.load_problem_state("a", between.problem_state("a"))  # a process that did nothing
    assert ends(after, {"a": 100}, start=breaks + EVERY) == undisturbed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"variance": "mean"}, "variance must be one of windowed, exponential, got 'mean'"),
        ({"window": 1}, "window must be a whole number of at least 2, got 1"),
        ({"patience": 0}, "patience must be a whole number of at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VarianceStopping(**arguments)


# ---------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def network(image_method):
    """DIP at a rate at which it soon fits the noise."""
    adam = partial(torch.optim.Adam, lr=0.01)
    return partial(image_method, corruption=None, theta_optimizer=adam, evaluate_every=2, block=10)


@pytest.fixture(scope="module")
def two(images):
    """Two images in one batch."""
    return partial(images, images=["camera", "coffee"], channels="grey", resize=(16, 16), batch_size=2)


STOP = partial(VarianceStopping, window=20, patience=40)
N = 300


@pytest.fixture(scope="module")
def stopped(fit, network, two, tmp_path_factory):
    """Problems that stop at different iterations before the last one."""
    return fit(tmp_path_factory.mktemp("stopped"), network(), two(), N, early_stop=STOP("windowed"))


def last_evaluation(run, name: str) -> int:
    return max(iteration for problem, iteration, _, _ in run.metrics if problem == name)


def test_output_of_least_variance_is_written(stopped, network, two) -> None:
    assert stopped.statuses == ["stable", "stable"]
    data, method = two(), network().method
    data.setup("fit")
    state = BatchState(method, data.batches[0], 0.5, 20.0)
    for name, iterations in sorted(zip(stopped.table, stopped.iterations, strict=True), key=lambda item: item[1]):
        assert last_evaluation(stopped, name) == iterations + 40
        state.advance(iterations - state.iteration)
        k = state.problems.names.index(name)
        X = state.evaluate().signal[k]
        assert np.array_equal(stopped.recovered(name), X.numpy())
        result = json.loads((stopped.folder / name / "result.json").read_text())
        assert result["iterations"] == iterations
        (psnr,) = [v for p, i, tag, v in stopped.metrics if (p, i, tag) == (name, iterations, "psnr")]
        assert result["psnr"] == pytest.approx(float(psnr), abs=1e-4)


def test_checkpoint_contains_the_written_output(stopped, make_trainer, network, two, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, N)
    outcomes = trainer.predict(network(), datamodule=two(), ckpt_path=str(stopped.checkpoint), weights_only=True)
    for outcome in outcomes:
        assert outcome.status == "stable"
        assert np.array_equal(outcome.signal.numpy(), stopped.recovered(outcome.problem.name))
        assert outcome.iteration == int(stopped.table[outcome.problem.name]["iterations"])


def test_last_problem_continues_alone(stopped, fit, network, two, images, tmp_path: Path) -> None:
    first, second = sorted(stopped.table, key=lambda name: last_evaluation(stopped, name))
    assert last_evaluation(stopped, first) < last_evaluation(stopped, second)
    which = "camera" if second.startswith("camera") else "coffee"
    data = images(images=which, channels="grey", resize=(16, 16))
    alone = fit(tmp_path, network(), data, N, early_stop=STOP("windowed"))
    assert np.array_equal(alone.recovered(second), stopped.recovered(second))
    assert alone.table[second] == stopped.table[second]


@pytest.mark.parametrize("before_the_first", [-50, -30, -1, 5, 40])
def test_resuming_gives_the_same_bits(before_the_first: int, stopped, fit, network, two, tmp_path: Path) -> None:
    at = min(last_evaluation(stopped, name) for name in stopped.table) + before_the_first
    fit(tmp_path, network(), two(), at, early_stop=STOP("windowed"))
    run = fit(tmp_path, network(), two(), N, early_stop=STOP("windowed"), resume=True)
    run.assert_equals(stopped)
    assert [row for row in run.metrics if row[1] % 2 == 0] == stopped.metrics


def test_stopped_run_is_unchanged(stopped, fit, network, two, tmp_path: Path) -> None:
    first = fit(tmp_path, network(), two(), N, early_stop=STOP("windowed"))
    (name, *_) = first.table
    (tmp_path / name / "result.json").unlink()
    again = fit(tmp_path, network(), two(), 2 * N, early_stop=STOP("windowed"), resume=True)
    again.assert_equals(stopped)
    assert again.metrics == stopped.metrics


def test_exponential_variance_stops_as_well(fit, network, two, tmp_path: Path) -> None:
    run = fit(tmp_path, network(), two(), N, early_stop=STOP("exponential"))
    assert run.statuses == ["stable", "stable"]


def test_run_that_ends_before_is_unchanged(fit, network, two, tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain", network(), two(), 50)
    watched = fit(tmp_path / "watched", network(), two(), 50, early_stop=STOP("windowed"))
    watched.assert_equals_recoveries(plain)
    assert watched.statuses == ["done", "done"]


def test_matrix_returns_to_its_best_iteration_too(fit, matrix_method, matrices, tmp_path: Path) -> None:
    """A batch in which one problem is constant and stops at once, while the others continue."""
    method = partial(matrix_method, tau=[2e-3, 1e-9, 2e-3], evaluate_every=50)
    run = fit(tmp_path, method(), matrices(), 600, early_stop=VarianceStopping("windowed", window=100, patience=150))
    slow = list(run.table)[1]
    assert run.table[slow]["status"] == "stable"
    plain = fit(tmp_path / "plain", method(), matrices(), int(run.table[slow]["iterations"]))
    assert np.array_equal(plain.recovered(slow), run.recovered(slow))


def test_a_window_without_two_evaluations_is_refused(fit, image_method, images, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"window must be at least two evaluations long, .* = 100 iterations, got 99"):
        fit(tmp_path, image_method(evaluate_every=50), images(), 10, early_stop=STOP("windowed", window=99))


def test_command_enables_the_rule(dop, tmp_path: Path) -> None:
    config = Path(__file__).parents[3] / "configs"
    layers = ["--config", str(config / "image.yaml"), "--config", str(config / "dip.yaml")]
    small = ["--data.resize", "16", "--model.signal.init_args.width", "4", "--model.signal.init_args.scales", "2"]
    rule = ["--early_stop.variance", "windowed", "--early_stop.window", "4", "--early_stop.patience", "2"]
    options = ["--model.evaluate_every", "2", "--trainer.max_steps", "60", "--trainer.default_root_dir", str(tmp_path)]
    said = dop("fit", *layers, *small, *rule, *options, "--trainer.accelerator", "cpu")
    assert said.status == 0, said.err
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "stable"
    assert int(row["iterations"]) < 60


# ------------------------------------------------------------------------------------------- the other rule, for images


def test_stable_output_ends_a_network_with_adam_and_dop(fit, image_method, images, tmp_path: Path) -> None:
    adam = partial(torch.optim.Adam, lr=1e-4)
    method = partial(image_method, theta_optimizer=adam, evaluate_every=5, alpha=1.0)
    stable = partial(StableOutput, tolerance=0.2, window=3, patience=2)
    run = fit(tmp_path / "whole", method(), images(), 200, stable=stable())
    assert run.statuses == ["stable"]
    assert run.iterations[0] % 15 == 0
    fit(tmp_path / "parts", method(), images(), run.iterations[0] - 7, stable=stable())
    fit(tmp_path / "parts", method(), images(), 200, stable=stable(), resume=True).assert_equals(run)
