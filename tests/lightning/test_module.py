"""Whole runs with a real Trainer: iterations, resuming, failures, ends, and the scores of a checkpoint."""

import json
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from dop_lightning.engine.descent import BatchState
from dop_lightning.lightning.callbacks import StableOutput
from dop_lightning.lightning.callbacks.checkpoint import LAST
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, Source
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.noise import SaltAndPepper
from dop_lightning.runs.results import SCORES

N = 1050
BREAK = 437  # a multiple of no block length


@pytest.fixture(scope="module")
def undisturbed(fit, matrix_method, matrices, tmp_path_factory):
    """1050 iterations at once."""
    return fit(tmp_path_factory.mktemp("undisturbed"), matrix_method(), matrices(), N)


# ---------------------------------------------------------------------------------------------------------- iterations


@pytest.fixture(scope="module")
def in_one_block(fit, matrix_method, matrices, tmp_path_factory):
    return fit(tmp_path_factory.mktemp("block"), matrix_method(block=10_000, evaluate_every=60), matrices(), 130)


@pytest.mark.parametrize("block", [1, 7, 60, 100, 130])
def test_max_steps_counts_iterations_for_any_block(
    block: int, in_one_block, fit, matrix_method, matrices, tmp_path: Path
) -> None:
    run = fit(tmp_path, matrix_method(block=block, evaluate_every=60), matrices(), 130)
    assert run.trainer.global_step == 130
    assert run.iterations == [130] * 3
    assert run.statuses == ["done"] * 3
    assert sorted({iteration for _, iteration, _, _ in run.metrics}) == [60, 120, 130]
    run.assert_equals(in_one_block)
    assert run.metrics == in_one_block.metrics


@pytest.mark.parametrize("block", [1, 3, 5])
def test_block_length_has_no_effect_on_a_network(block: int, fit, image_method, images, tmp_path: Path) -> None:
    one = fit(tmp_path / "one", image_method(block=100, evaluate_every=4), images(), 7)
    fit(tmp_path / "other", image_method(block=block, evaluate_every=4), images(), 7).assert_equals(one)


def test_matrices_are_recovered(undisturbed) -> None:
    for row in undisturbed.table.values():
        assert float(row["relative_error"]) < 0.2
        assert float(row["rank"]) == 1


def test_batches_of_several_shapes_in_one_run(fit, matrix_method, matrices, tmp_path: Path) -> None:
    several = fit(tmp_path / "several", matrix_method(), matrices(n=[12, 9], batch_size=2), 250)
    assert [len(batch) for batch in several.data.batches] == [2, 1, 2, 1]
    assert several.iterations == [250] * 6
    assert several.trainer.global_step == 250
    for n in (9, 12):
        alone = fit(tmp_path / f"{n}", matrix_method(), matrices(n=n, batch_size=2), 250)
        assert alone.table.items() <= several.table.items()
        for name in alone.table:
            assert np.array_equal(alone.recovered(name), several.recovered(name))


def test_batched_or_one_by_one_agrees_at_the_end(undisturbed, fit, matrix_method, matrices, tmp_path: Path) -> None:
    one_by_one = fit(tmp_path, matrix_method(), matrices(batch_size=1), N)
    assert len(one_by_one.data.batches) == 3
    undisturbed.assert_close(one_by_one)


def test_one_rate_per_problem(undisturbed, fit, matrix_method, matrices, tmp_path: Path) -> None:
    first, second, third = undisturbed.table
    module = matrix_method(tau=[2e-3, 1e-3, 2e-3], alpha=[12**0.5, 12**0.5, 5.0])
    run = fit(tmp_path, module, matrices(), N)
    run.assert_close(undisturbed, first)
    for name, setting in ((second, {"tau": 1e-3}), (third, {"alpha": 5.0})):
        seed = int(undisturbed.table[name]["seed"])
        run.assert_close(fit(tmp_path / name, matrix_method(**setting), matrices(seeds=[seed]), N), name)
    assert [row["alpha"] for row in run.table.values()] == ["3.4641", "3.4641", "5"]


def test_the_name_does_not_matter(undisturbed, fit, matrix_method, matrices, tmp_path: Path) -> None:
    class Renamed(MatrixDataModule):
        def sources(self) -> Sequence[Source]:
            (source,) = super().sources()
            source.name = "another"
            return [source]

    run = fit(tmp_path, matrix_method(), Renamed(12, 1, noise=matrices().noises, seeds=3), N)
    assert all(name.startswith("another-") for name in run.table)
    for renamed, name in zip(run.table, undisturbed.table, strict=True):
        assert np.array_equal(run.recovered(renamed), undisturbed.recovered(name))


# ------------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("block", [100, 37])
def test_resumed_equals_undisturbed(block: int, undisturbed, fit, matrix_method, matrices, tmp_path: Path) -> None:
    part = fit(tmp_path, matrix_method(), matrices(), BREAK)
    assert part.iterations == [BREAK] * 3
    run = fit(tmp_path, matrix_method(block=block), matrices(), N, resume=True)
    assert run.trainer.global_step == N
    run.assert_equals(undisturbed)
    assert [row for row in run.metrics if row[1] != BREAK] == undisturbed.metrics


def test_resumed_network_equals_undisturbed(fit, image_method, images, tmp_path: Path) -> None:
    settings = {"block": 20, "evaluate_every": 70}
    undisturbed = fit(tmp_path / "once", image_method(**settings), images(), 210)
    assert undisturbed.statuses == ["done"]
    fit(tmp_path / "twice", image_method(**settings), images(), 87)  # a multiple of no block length
    run = fit(tmp_path / "twice", image_method(**{**settings, "block": 13}), images(), 210, resume=True)
    assert run.trainer.global_step == 210
    run.assert_equals(undisturbed)


def test_best_of_a_resumed_run_equals_an_undisturbed_one(fit, image_method, images, tmp_path: Path) -> None:
    # without s the network soon fits the noise: the best comes early, here between two evaluations of the longer run
    settings = {"corruption": None, "evaluate_every": 20}
    noisy = partial(images, noise=SaltAndPepper(0.6))
    undisturbed = fit(tmp_path / "once", image_method(**settings), noisy(), 60)
    part = fit(tmp_path / "twice", image_method(**settings), noisy(), 35)
    (row,), (later,) = part.table.values(), undisturbed.table.values()
    assert row["best_iteration"] == "35"
    assert row["best_psnr"] == row["psnr"]
    assert float(row["best_psnr"]) > float(later["best_psnr"])
    fit(tmp_path / "twice", image_method(**settings), noisy(), 60, resume=True).assert_equals(undisturbed)


def test_module_continues_without_a_checkpoint(undisturbed, fit, matrix_method, matrices, tmp_path: Path) -> None:
    module = matrix_method()
    fit(tmp_path, module, matrices(), BREAK)
    fit(tmp_path, module, matrices(), N).assert_equals(undisturbed)


def test_finished_run_does_not_continue(fit, matrix_method, matrices, tmp_path: Path) -> None:
    before = fit(tmp_path, matrix_method(), matrices(), 200)
    states, table, metrics = before.states(), before.table, before.metrics
    after = fit(tmp_path, matrix_method(), matrices(), 200, resume=True)
    assert after.trainer.global_step == 200
    assert after.table == table
    assert after.metrics == metrics
    assert all(torch.equal(states[name][key], v) for name, s in after.states().items() for key, v in s.items())


def test_problem_missing_from_the_checkpoint_restarts(
    undisturbed, fit, matrix_method, matrices, tmp_path: Path
) -> None:
    fit(tmp_path, matrix_method(), matrices(seeds=2), BREAK)
    run = fit(tmp_path, matrix_method(), matrices(), N, resume=True)
    assert run.iterations == [N] * 3
    run.assert_close(undisturbed)


def test_another_optimizer_of_theta_is_resumed(fit, matrix_method, matrices, tmp_path: Path) -> None:
    settings = {"theta_optimizer": partial(torch.optim.Adam, lr=0.02), "block": 10, "evaluate_every": 20}
    undisturbed = fit(tmp_path / "once", matrix_method(**settings), matrices(), 60)
    assert any("exp_avg" in key for key in next(iter(undisturbed.states().values())))
    fit(tmp_path / "twice", matrix_method(**settings), matrices(), 23)
    run = fit(tmp_path / "twice", matrix_method(**{**settings, "block": 7}), matrices(), 60, resume=True)
    run.assert_equals(undisturbed)


def test_another_optimizer_of_a_network_is_resumed(fit, image_method, images, tmp_path: Path) -> None:
    settings = {"theta_optimizer": partial(torch.optim.Adam, lr=0.005), "evaluate_every": 10}
    undisturbed = fit(tmp_path / "once", image_method(**settings), images(), 30)
    fit(tmp_path / "twice", image_method(**settings), images(), 13)
    fit(tmp_path / "twice", image_method(**settings), images(), 30, resume=True).assert_equals(undisturbed)


# ---------------------------------------------------------------------------------------- interrupted and out of time


@pytest.mark.parametrize("by", [None, signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_writes_results_and_resumes(
    by: signal.Signals | None, undisturbed, fit, matrix_method, matrices, stop_at, tmp_path: Path
) -> None:
    run = fit(tmp_path / "a", matrix_method(), matrices(), N, stop_at(300, by))
    assert run.module.stopped_by == ("" if by is None else by.name)
    assert run.statuses == ["interrupted"] * 3
    assert run.iterations == [300] * 3
    at_300 = fit(tmp_path / "b", matrix_method(), matrices(), 300)
    for name, row in run.table.items():
        assert np.array_equal(run.recovered(name), at_300.recovered(name))
        assert row["loss"] == at_300.table[name]["loss"]
        assert json.loads((run.folder / name / "result.json").read_text())["status"] == "interrupted"
    fit(tmp_path / "a", matrix_method(), matrices(), N, resume=True).assert_equals(undisturbed)


def test_interrupted_network_resumes(fit, image_method, images, stop_at, tmp_path: Path) -> None:
    undisturbed = fit(tmp_path / "once", image_method(evaluate_every=25), images(), 60)
    run = fit(tmp_path / "twice", image_method(evaluate_every=25), images(), 60, stop_at(33, signal.SIGINT))
    assert run.statuses == ["interrupted"]
    assert run.iterations == [40]
    fit(tmp_path / "twice", image_method(evaluate_every=25), images(), 60, resume=True).assert_equals(undisturbed)


def test_a_time_limit_interrupts(undisturbed, fit, matrix_method, matrices, tmp_path: Path) -> None:
    class OneBlock(pl.callbacks.Timer):
        """Its time is up at the end of the first block."""

        def __init__(self) -> None:
            super().__init__({"seconds": 1})
            self.blocks = 0

        def time_elapsed(self, stage: str = "train") -> float:
            return float(self.blocks)

        def on_train_batch_end(self, *args, **kwargs) -> None:
            self.blocks += 1
            super().on_train_batch_end(*args, **kwargs)

    run = fit(tmp_path, matrix_method(), matrices(), -1, OneBlock())
    assert run.statuses == ["interrupted"] * 3
    assert run.iterations == [100] * 3
    fit(tmp_path, matrix_method(), matrices(), N, resume=True).assert_equals(undisturbed)


@pytest.mark.parametrize("stop", [True, False])
def test_fitting_needs_no_validation(stop: bool, fit, matrix_method, matrices, stop_at, tmp_path: Path) -> None:
    class NoValidation(pl.Callback):
        def on_validation_start(self, *args) -> None:
            raise AssertionError("Lightning validates while fitting")

    callbacks = [NoValidation(), *([stop_at(100)] if stop else [])]
    run = fit(tmp_path, matrix_method(), matrices(), 200, *callbacks)
    assert run.statuses == ["interrupted" if stop else "done"] * 3


# ------------------------------------------------------------------------------------------------- diverged and stable


def test_diverging_problem_is_frozen_and_others_continue(fit, matrix_method, matrices, tmp_path: Path) -> None:
    def method() -> DoubleOverparameterization:
        return matrix_method(tau=[2e-3, 0.3, 2e-3], block=5, evaluate_every=50)

    run = fit(tmp_path / "with", method(), matrices(), N)
    first, sick, last = run.table
    assert run.statuses == ["done", "diverged", "done"]
    frozen = run.iterations[1]
    assert 0 < frozen < 100
    assert frozen % 5 == 0
    assert run.iterations == [N, frozen, N]

    # it stands where it stood at the end of the block before
    before = fit(tmp_path / "before", method(), matrices(), frozen)
    assert before.statuses == ["done"] * 3
    for key, value in before.states()[sick].items():
        if key.startswith("/state"):
            assert torch.equal(run.states()[sick][key], value), key
    assert np.array_equal(run.recovered(sick), before.recovered(sick))
    assert np.isfinite(run.recovered(sick)).all()

    without = fit(tmp_path / "without", matrix_method(evaluate_every=50), matrices(seeds=[0, 2]), N)
    assert list(without.table) == [first, last]
    run.assert_close(without, first, last)


def test_a_run_whose_problems_all_diverge_ends(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(tau=1e3), matrices(), N)
    assert run.statuses == ["diverged"] * 3
    assert run.iterations == [0] * 3
    again = fit(tmp_path, matrix_method(tau=1e3), matrices(), N, resume=True)
    assert again.statuses == ["diverged"] * 3


def test_diverged_run_is_not_repeated_when_resumed(fit, matrix_method, matrices, stop_at, tmp_path: Path) -> None:
    settings = {"tau": [2e-3, 1e3, 2e-3]}
    undisturbed = fit(tmp_path / "once", matrix_method(**settings), matrices(), N)
    fit(tmp_path / "twice", matrix_method(**settings), matrices(), N, stop_at(300))
    run = fit(tmp_path / "twice", matrix_method(**settings), matrices(), N, resume=True)
    assert run.statuses == ["done", "diverged", "done"]
    run.assert_equals(undisturbed)


def test_diverging_network_does_not_affect_others(fit, image_method, images, tmp_path: Path) -> None:
    data = partial(images, images=["camera", "coffee"], channels="grey", resize=(16, 16), batch_size=2)
    run = fit(tmp_path / "with", image_method(alpha=[20.0, 1e9]), data(), 40)
    camera, coffee = run.table
    assert len(run.data.batches) == 1
    assert run.statuses == ["done", "diverged"]
    alone = fit(tmp_path / "without", image_method(), images(resize=(16, 16)), 40)
    # a network has separate parameters: here not even the bits differ
    assert np.array_equal(run.recovered(camera), alone.recovered(camera))
    assert np.isfinite(run.recovered(coffee)).all()


SPEEDS = [8e-3, 4e-4, 4e-3]


def settling() -> StableOutput:
    return StableOutput(tolerance=0.003, window=2, patience=2)


@pytest.fixture(scope="module")
def settled(fit, matrix_method, matrices, tmp_path_factory):
    """Problems at different rates, two of which settle before the last iteration."""
    folder = tmp_path_factory.mktemp("settled")
    return fit(folder, matrix_method(tau=SPEEDS, evaluate_every=50), matrices(), 2000, stable=settling())


def test_stable_problem_ends_and_others_continue(settled, fit, matrix_method, matrices, tmp_path: Path) -> None:
    assert settled.statuses == ["stable", "done", "stable"]
    one, slow, other = settled.iterations
    assert len({one, slow, other}) == 3
    assert slow == 2000
    assert one % 100 == other % 100 == 0
    alone = fit(tmp_path, matrix_method(tau=4e-4, evaluate_every=50), matrices(seeds=[1]), 2000)
    settled.assert_close(alone, list(settled.table)[1])


@pytest.mark.parametrize(("after", "stable"), [("the first", 1), ("the second", 2), ("half a window", 0)])
def test_resumed_after_a_problem_became_stable(
    after: str, stable: int, settled, fit, matrix_method, matrices, tmp_path: Path
) -> None:
    first, second, _ = sorted(settled.iterations)
    steps = {"the first": first + 37, "the second": second + 100, "half a window": first - 30}[after]
    method = partial(matrix_method, tau=SPEEDS, evaluate_every=50)
    part = fit(tmp_path, method(), matrices(), steps, stable=settling())
    assert part.statuses.count("stable") == stable
    run = fit(tmp_path, method(), matrices(), 2000, stable=settling(), resume=True)
    run.assert_equals(settled)


def test_a_run_whose_problems_are_all_stable_ends(fit, matrix_method, matrices, tmp_path: Path) -> None:
    always = partial(StableOutput, tolerance=1e9, window=1, patience=1)
    run = fit(tmp_path, matrix_method(), matrices(), N, stable=always())
    assert run.statuses == ["stable"] * 3
    assert run.iterations == [400] * 3
    again = fit(tmp_path, matrix_method(), matrices(), N, stable=always(), resume=True)
    assert again.iterations == [400] * 3
    assert again.trainer.global_step == 400


# -------------------------------------------------------------------------------------------------- rivals as settings


def test_mf_l1_is_a_setting(fit, matrix_method, matrices, tmp_path: Path) -> None:
    module = matrix_method(signal=partial(SymmetricFactor, rank=1, scale=0.1), corruption=None, loss=AbsoluteLoss())
    run = fit(tmp_path, module, matrices(), N)
    assert run.statuses == ["done"] * 3
    for row in run.table.values():
        assert row["alpha"] == row["corruption_density"] == row["relative_error_corruption"] == ""
        assert float(row["relative_error"]) < 0.3


@pytest.mark.parametrize("loss", [None, AbsoluteLoss("mean")])
def test_dip_and_dip_l1_are_settings(loss, fit, image_method, images, tmp_path: Path) -> None:
    module = image_method(corruption=None, alpha=None, **({} if loss is None else {"loss": loss}))
    run = fit(tmp_path, module, images(), 10)
    (row,) = run.table.values()
    assert row["status"] == "done"
    assert row["alpha"] == row["corruption_density"] == row["relative_error_corruption"] == ""
    assert row["true_density"] != ""
    assert json.loads((tmp_path / row["problem"] / "result.json").read_text())["alpha"] is None


def test_missing_entries(fit, matrix_method, tmp_path: Path) -> None:
    """Robust completion: the operator is the mask, without a word about it in the method."""
    file = tmp_path / "holes.npy"
    u = np.linspace(1, 2, 12, dtype=np.float32)
    matrix = np.outer(u, u)
    matrix[::4, ::3] = np.nan
    np.save(file, matrix)
    run = fit(tmp_path / "run", matrix_method(), MatrixDataModule(files=str(file)), N)
    np.testing.assert_allclose(run.recovered("holes"), np.outer(u, u), rtol=0.05)


# ------------------------------------------------------------------------------------------------------ score and write


def expected_scores(run) -> dict[str, float]:
    """The means of ``results.csv`` by score, as Lightning logs them; the best is no score of the end."""
    means = {}
    for score in set(SCORES) - {"best_psnr", "best_iteration"}:
        known = [float(row[score]) for row in run.table.values() if row[score]]
        if known:
            means[score] = sum(known) / len(known)
    return means


@pytest.fixture(scope="module")
def runs(undisturbed, fit, image_method, images, matrix_method, matrices, tmp_path_factory):
    """Runs of every kind."""
    new = tmp_path_factory.mktemp
    both = partial(images, images=["camera", "coffee"], channels="grey", resize=(16, 16), batch_size=2)
    return {
        "matrices": undisturbed,
        "images": fit(new("images"), image_method(), both(), 40),
        "a diverged image": fit(new("network"), image_method(alpha=[20.0, 2e3]), both(), 40),
        "a diverged matrix": fit(new("diverged"), matrix_method(tau=[2e-3, 0.3, 2e-3], block=5), matrices(), 200),
    }


@pytest.mark.parametrize("kind", ["matrices", "images", "a diverged image", "a diverged matrix"])
@pytest.mark.parametrize("verb", ["validate", "test"])
@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_scores_equal_the_results(
    from_checkpoint: bool, verb: str, kind: str, runs, make_trainer, image_method, matrix_method, tmp_path: Path
) -> None:
    run = runs[kind]
    module, checkpoint = run.module, None
    if from_checkpoint:
        method = image_method if "image" in kind else matrix_method
        module = method(tau=run.module.tau, alpha=run.module.alpha)
        checkpoint = str(run.checkpoint)
    trainer = make_trainer(tmp_path, 1)
    options = {"datamodule": run.data, "ckpt_path": checkpoint, "weights_only": True, "verbose": False}
    (scores,) = getattr(trainer, verb)(module, **options)
    assert scores == pytest.approx(expected_scores(run), rel=1e-5)


@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_predict_returns_and_writes_results(
    from_checkpoint: bool, runs, make_trainer, image_method, tmp_path: Path
) -> None:
    run = runs["images"]
    module = image_method() if from_checkpoint else run.module
    checkpoint = str(run.checkpoint) if from_checkpoint else None
    trainer = make_trainer(tmp_path, 1)
    outcomes = trainer.predict(module, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    assert outcomes is not None
    for outcome, (name, row) in zip(outcomes, run.table.items(), strict=True):
        assert (outcome.problem.name, outcome.status) == (name, row["status"])
        assert np.array_equal(outcome.signal.numpy(), run.recovered(name))
        assert np.array_equal(np.load(tmp_path / name / "recovered.npy"), run.recovered(name))
        for picture in ("recovered.png", "corruption.png", "comparison.png"):
            assert (tmp_path / name / picture).read_bytes() == (run.folder / name / picture).read_bytes()


def test_testing_does_not_affect_a_run(undisturbed, fit, make_trainer, matrix_method, matrices, stop_at, tmp_path):
    module = matrix_method()
    fit(tmp_path, module, matrices(), N, stop_at(300))
    make_trainer(tmp_path, 1).test(module, datamodule=matrices(), verbose=False)
    fit(tmp_path, module, matrices(), N).assert_equals(undisturbed)


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"tau": 0.0}, "tau must be a finite number above 0, got 0.0"),
        ({"tau": [1e-3, -1.0, 1e-3]}, "tau must be a finite number above 0, got -1.0"),
        ({"alpha": float("nan")}, "alpha must be a finite number above 0, got nan"),
        ({"block": 0}, "block must be a whole number of at least 1, got 0"),
        ({"evaluate_every": 0}, "evaluate_every must be a whole number of at least 1, got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DoubleOverparameterization(**setting)


@pytest.mark.parametrize("name", ["tau", "alpha"])
def test_list_must_have_one_number_per_problem(name: str, fit, matrix_method, matrices, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be one number, or one per problem \(3\), got 2 numbers"):
        fit(tmp_path, matrix_method(**{name: [1.0, 2.0]}), matrices(), 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [-1, 0])
def test_run_requires_an_end(steps: int, fit, matrix_method, matrices, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"max_steps must be .* at least 1, got {steps}"):
        fit(tmp_path, matrix_method(), matrices(), steps)
    assert list(tmp_path.iterdir()) == []


def test_module_requires_a_data_module(make_trainer, matrix_method, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs datamodule="):
        make_trainer(tmp_path, 10).fit(matrix_method(), train_dataloaders=[1], val_dataloaders=[1])


def test_images_require_alpha_with_other_losses(fit, image_method, images, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="alpha has no default for a signal of shape"):
        fit(tmp_path, image_method(alpha=None, loss=SquaredLoss("sum")), images(), 10)


def test_a_signal_must_fit_the_data(fit, matrix_method, matrices, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SkipUNet requires images"):
        fit(tmp_path, matrix_method(signal=SkipUNet), matrices(), 10)


def test_a_checkpoint_of_other_problems_is_refused(undisturbed, fit, matrix_method, matrices) -> None:
    with pytest.raises(
        ValueError, match=r"must contain problems of this run, such as 'n12-r1-gross-outliers-.*-seed7'"
    ):
        fit(undisturbed.folder, matrix_method(), matrices(seeds=[7]), N, resume=True)


def test_a_checkpoint_of_another_method_is_refused(undisturbed, fit, matrix_method, matrices) -> None:
    module = matrix_method(signal=partial(SymmetricFactor, rank=2))
    with pytest.raises(ValueError, match=r"state of U must have shape \(12, 2\), got \(12, 12\)"):
        fit(undisturbed.folder, module, matrices(), 2 * N, resume=True)


def test_parts_do_not_depend_on_the_device_that_lightning_builds_on(
    matrices, images, matrix_method, image_method
) -> None:
    """Lightning builds models under ``with device:``; «meta» represents a device with a separate generator."""
    for data, make in ((matrices(), matrix_method), (images(), image_method)):
        data.setup()
        method = make().method
        plain = BatchState(method, data.batches[0], 1e-3, 5.0)
        with torch.device("meta"):
            built = BatchState(method, data.batches[0], 1e-3, 5.0)
        for k in range(len(plain)):
            before, after = plain.problem_state(k), built.problem_state(k)
            for part in ("signal", "corruption"):
                assert all(torch.equal(before[part][name], after[part][name]) for name in before[part])


def test_a_problem_that_is_ahead_waits_for_the_others(fit, matrix_method, matrices, tmp_path: Path) -> None:
    stopping = StableOutput(tolerance=1e-9, window=1, patience=1)  # a constant output would count as stable
    fit(tmp_path, matrix_method(), matrices(seeds=[0]), 400)
    run = fit(tmp_path, matrix_method(), matrices(seeds=[0, 1]), 800, resume=True, stable=stopping)
    assert {row["status"] for row in run.table.values()} == {"done"}
    assert {row["iterations"] for row in run.table.values()} == {"800"}
    at = [iteration for name, iteration, tag, _ in run.metrics if name.endswith("seed0") and tag == "loss"]
    assert at == [200, 400, 600, 800]


def test_a_signal_stops_between_two_batches(make_trainer, matrix_method, matrices, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", 400)
    whole.fit(matrix_method(), datamodule=matrices(batch_size=1))
    module, trainer = matrix_method(), make_trainer(tmp_path / "cut", 400)
    advances = []
    advance = BatchState.advance

    def advance_and_stop(state: BatchState, iterations: int) -> list[int]:
        advances.append(iterations)
        if len(advances) == 5:  # the second of three batches, in the second block
            module.stopped_by = "SIGTERM"
            trainer.should_stop = True
        return advance(state, iterations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dop_lightning.engine.descent.BatchState.advance", advance_and_stop)
        trainer.fit(module, datamodule=matrices(batch_size=1))
    assert [record.iteration for record in module.records.values()] == [200, 200, 100]
    resumed, last = make_trainer(tmp_path / "cut", 400), tmp_path / "cut" / LAST
    resumed.fit(matrix_method(), datamodule=matrices(batch_size=1), ckpt_path=last, weights_only=True)
    for one in (tmp_path / "whole").glob("*/recovered.npy"):
        assert (tmp_path / "cut" / one.parent.name / one.name).read_bytes() == one.read_bytes()


# -------------------------------------------------------------------------------------------------------------- memory


def test_out_of_memory_halves_a_batch_and_changes_no_result(
    fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    data = {"seeds": 5, "batch_size": 5}
    plain = fit(tmp_path / "plain", image_method(), images(**data), 30)
    forward = SkipUNet.forward
    sizes = []

    def greedy(self: SkipUNet, iteration: int = 0) -> torch.Tensor:
        if len(self.networks) > 2 and iteration >= 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(self.networks))
        return forward(self, iteration)

    monkeypatch.setattr(SkipUNet, "forward", greedy)
    capsys.readouterr()
    run = fit(tmp_path / "halved", image_method(), images(**data), 30)
    run.assert_equals(plain)
    assert set(sizes) == {5, 2, 1}
    said = capsys.readouterr().err
    assert "out of memory with 5 problems of shape (1, 16, 16): continuing with half of the problems at a time" in said
    assert "out of memory with 3 problems" in said


def test_out_of_memory_with_one_problem_gives_advice(
    fit, image_method, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(self: SkipUNet, iteration: int = 0) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(SkipUNet, "forward", greedy)
    with pytest.raises(ValueError, match=r"camera.*: out of memory with 1 problem.*recover the image in tiles"):
        fit(tmp_path, image_method(), images(), 30)


# --------------------------------------------------------------------------------------------------------------- tiles


class TestTiles:
    """One image of 20×28 pixels in six tiles of 12×12."""

    @pytest.fixture
    def tiled(self, images):
        return partial(images, crop=[20, 28], resize=None, tile=12, overlap=4, batch_size=2)

    def test_table_has_one_row_per_image_and_its_folder_all_files(
        self, fit, image_method, tiled, tmp_path: Path
    ) -> None:
        run = fit(tmp_path, image_method(), tiled(), 60)
        (name,) = run.table
        row = run.table[name]
        assert (row["status"], row["iterations"]) == ("done", "60")
        files = {path.name for path in (tmp_path / name).iterdir()}
        pictures = {f"{picture}.png" for picture in ("observation", "recovered", "corruption", "truth", "comparison")}
        assert files == {"recovered.npy", "histogram.csv", "result.json", "tiles", *pictures}
        assert run.recovered(name).shape == (1, 20, 28)
        assert len(list((tmp_path / name / "tiles").iterdir())) == 6

    def test_the_image_is_the_blend_of_its_tiles_and_is_scored_as_a_whole(
        self, fit, image_method, tiled, tmp_path: Path
    ) -> None:
        run = fit(tmp_path, image_method(), tiled(), 60)
        ((name, mosaic),) = run.data.mosaics.items()
        tiles = {
            place: torch.from_numpy(np.load(tmp_path / tile.folder / "recovered.npy"))
            for place, tile in mosaic.tiles.items()
        }
        blend = mosaic.grid.blend(tiles)
        assert np.array_equal(run.recovered(name), blend.numpy())
        error = (blend - mosaic.whole.truth).square().mean()
        assert float(run.table[name]["psnr"]) == pytest.approx(float(-10 * torch.log10(error)), abs=1e-3)

    def test_stopped_run_shows_results_and_resumes_to_the_same_end(
        self, fit, image_method, tiled, stop_at, tmp_path: Path
    ) -> None:
        plain = fit(tmp_path / "plain", image_method(), tiled(), 60)
        stopped = fit(tmp_path / "stopped", image_method(), tiled(), 60, stop_at(30, signal.SIGTERM))
        assert stopped.statuses == ["interrupted"]
        assert stopped.iterations == [30]
        resumed = fit(tmp_path / "stopped", image_method(), tiled(), 60, resume=True)
        resumed.assert_equals_recoveries(plain)

    def test_diverging_tile_is_reported_and_others_continue(self, fit, image_method, tiled, tmp_path: Path) -> None:
        data = tiled()
        run = fit(tmp_path, image_method(tau=[0.5, 1e12, 0.5, 0.5, 0.5, 0.5]), data, 20)
        assert run.statuses == ["diverged"]
        (mosaic,) = data.mosaics.values()
        names = [tile.name for tile in mosaic.tiles.values()]
        assert [run.module.records[name].status for name in names] == ["done", "diverged", *["done"] * 4]
        assert np.isfinite(run.recovered(mosaic.whole.name)).all()

    def test_a_tile_without_observed_entries_is_filled(self, fit, image_method, tmp_path: Path) -> None:
        pixels = np.full((20, 28, 2), 255, np.uint8)
        pixels[..., 0] = np.arange(28) * 9
        pixels[:12, :12, 1] = 0
        Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
        data = ImageDataModule(str(tmp_path / "a.png"), tile=12, overlap=4)
        run = fit(tmp_path / "run", image_method(), data, 20)
        assert len(data.problems) == 5
        assert run.statuses == ["done"]
        assert np.isfinite(run.recovered("a")).all()
        with Image.open(tmp_path / "run" / "a" / "recovered.png") as image:
            assert (image.mode, image.size) == ("LA", (28, 20))
            assert np.array_equal(np.asarray(image)[..., 1], pixels[..., 1])

    def test_a_tile_of_the_name_of_another_image_keeps_its_folder(self, tmp_path: Path) -> None:
        for name, width in (("photo", 20), ("photo-r0-c0", 9)):
            Image.fromarray(np.zeros((9, width), np.uint8)).save(tmp_path / f"{name}.png")
        data = ImageDataModule(str(tmp_path), tile=16)
        data.setup()
        assert [(p.name, p.folder) for p in data.problems] == [
            ("photo-r0-c0", "photo-r0-c0"),
            ("photo-r0-c0-2", "photo/tiles/r0-c0"),
            ("photo-r0-c1", "photo/tiles/r0-c1"),
        ]
        assert [tile.name for tile in data.mosaics["photo"].tiles.values()] == ["photo-r0-c0-2", "photo-r0-c1"]

    def test_removed_results_are_written_again(self, fit, image_method, tiled, tmp_path: Path) -> None:
        plain = fit(tmp_path, image_method(), tiled(), 30)
        (name,) = plain.table
        before = plain.recovered(name)
        shutil.rmtree(tmp_path / name)
        again = fit(tmp_path, image_method(), tiled(), 30, resume=True)
        assert np.array_equal(again.recovered(name), before)
