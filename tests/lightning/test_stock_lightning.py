"""What Lightning's documentation promises, as a Lightning user would type it: it works, or one line refuses it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

from dop_lightning.engine.steps import Nesterov
from dop_lightning.lightning.callbacks import CheckpointFolder, RecoveryMetrics
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import Factor, SkipUNet
from dop_lightning.problems.problem import Problem

EVERY = 100
"""Iterations between two evaluations."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices"),
    pytest.mark.filterwarnings("ignore:.*but AMP with fp16 is not supported on CPU"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*was called without a model"),
    pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available"),
]


def problem(seed: int, n: int = 12) -> Problem:
    """A matrix of rank 2 with outliers."""
    draws = torch.Generator().manual_seed(seed)
    truth = torch.randn(n, 2, generator=draws) @ torch.randn(2, n, generator=draws)
    outliers = (torch.rand(n, n, generator=draws) < 0.1) * 10 * torch.randn(n, n, generator=draws)
    return Problem(f"matrix-{seed}", truth + outliers, truth=truth, true_corruption=outliers, seed=seed)


def module(kind: type[DoubleOverparameterization] = DoubleOverparameterization, **settings: Any) -> Any:
    defaults = {"signal": partial(Factor, rank=2), "tau": 2e-3, "block": 50, "evaluate_every": EVERY}
    return kind(**{**defaults, **settings}).attach([problem(seed) for seed in range(3)])


def network(**settings: Any) -> DoubleOverparameterization:
    picture = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    defaults = {
        "signal": partial(SkipUNet, width=4, scales=2, input_channels=4, precision="fp32"),
        "corruption": partial(HadamardCorruption, scale=1e-5, tied=False),
        "loss": SquaredLoss("mean"),
        "theta_optimizer": partial(torch.optim.Adam, lr=0.01),
        "tau": 0.5,
        "alpha": 20.0,
        "block": 5,
        "evaluate_every": 10,
    }
    made = DoubleOverparameterization(**{**defaults, **settings})
    return made.attach([Problem(name, picture, truth=picture, seed=k, data_range=1.0) for k, name in enumerate("ab")])


def trainer(folder: Path, *more: pl.Callback, **options: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "max_steps": 400,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, callbacks.Checkpoint) for callback in more),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "callbacks": list(more),
    }
    return pl.Trainer(**{**defaults, **options})


class Watch(pl.Callback):
    """Notes the hooks that are called, with the step."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.metrics: list[dict[str, float]] = []

    def _note(self, hook: str, trainer: pl.Trainer) -> None:
        self.calls.append((hook, trainer.global_step))

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._note("block", trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._note("epoch", trainer)
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._note("validation", trainer)

    def steps(self, hook: str) -> list[int]:
        return [step for name, step in self.calls if name == hook]


def state_of(fitted: Any) -> dict[str, Tensor]:
    return dict(fitted.state_dict())


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert one
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


FEATURES: dict[str, Callable[[Path], None]] = {}


def feature(function: Callable[[Path], None]) -> Callable[[Path], None]:
    FEATURES[function.__name__] = function
    return function


# ------------------------------------------------------------------------------------------------------------- time


@feature
def an_epoch_ends_where_an_evaluation_ends(folder: Path) -> None:
    watch = Watch()
    fitting = trainer(folder, watch, max_steps=250, limit_val_batches=0)
    fitting.fit(module())
    assert watch.steps("epoch") == [100, 200, 250]
    assert fitting.current_epoch == 3
    assert fitting.global_step == 250


@feature
def max_epochs_counts_evaluations(folder: Path) -> None:
    watch = Watch()
    fitting = trainer(folder, watch, max_steps=-1, max_epochs=3)
    fitted = module()
    fitting.fit(fitted)
    assert fitting.global_step == 3 * EVERY
    assert {record.status for record in fitted.records.values()} == {"done"}


@feature
def the_reason_of_the_end_is_logged(folder: Path) -> None:
    said: list[str] = []
    with mock.patch("pytorch_lightning.loops.fit_loop.rank_zero_info", said.append):
        for limits in ({"max_steps": 200}, {"max_steps": -1, "max_epochs": 2}):
            trainer(folder, **limits).fit(module())
    reasons = [line for line in said if "stopped" in line]
    assert reasons == [
        "`Trainer.fit` stopped: `max_steps=200` reached.",
        "`Trainer.fit` stopped: `max_epochs=2` reached.",
    ]


@feature
def max_epochs_counts_short_epochs_too(folder: Path) -> None:
    fitting = trainer(folder, max_steps=-1, max_epochs=3, limit_train_batches=1)
    fitted = module()
    fitting.fit(fitted)
    assert fitting.global_step == 3 * 50
    assert {record.status for record in fitted.records.values()} == {"done"}
    again = trainer(folder, max_steps=-1, max_epochs=5, limit_train_batches=1)
    again.fit(fitted)
    assert again.global_step > fitting.global_step


@feature
def max_time_ends_a_run(folder: Path) -> None:
    fitting = trainer(folder, max_steps=-1, max_epochs=-1, max_time=timedelta(seconds=0.3))
    fitted = module()
    fitting.fit(fitted)
    assert fitting.global_step % 50 == 0
    assert {record.status for record in fitted.records.values()} == {"interrupted"}


@feature
def min_epochs_delays_early_stopping(folder: Path) -> None:
    stop = callbacks.EarlyStopping("loss", mode="max", patience=1)
    fitting = trainer(folder, stop, max_steps=1000, min_epochs=5)
    fitting.fit(module())
    assert fitting.current_epoch == 5


@feature
def blocks_change_no_step(folder: Path) -> None:
    ends = []
    for block in (7, 100):
        watch = Watch()
        trainer(folder, watch, max_steps=250).fit(module(block=block))
        ends.append(watch.steps("epoch"))
    assert ends[0] == ends[1]


@feature
def fast_dev_run_does_one_iteration(folder: Path) -> None:
    fitting = trainer(folder, fast_dev_run=True, max_steps=-1)
    fitting.fit(module())
    assert fitting.global_step == 1


@feature
def limit_train_batches_shortens_an_epoch(folder: Path) -> None:
    watch = Watch()
    trainer(folder, watch, max_steps=200, limit_train_batches=1, limit_val_batches=0).fit(module())
    assert watch.steps("epoch") == [50, 100, 150, 200]


# ------------------------------------------------------------------------------------------------------- validation


@feature
def validation_repeats_an_evaluation(folder: Path) -> None:
    watch = Watch()
    fitted = module()
    trainer(folder, watch, max_steps=250).fit(fitted)
    assert watch.steps("validation") == [100, 200, 250]
    apart = module()
    trainer(folder, max_steps=250, limit_val_batches=0).fit(apart)
    assert_same(state_of(fitted), state_of(apart))


@feature
def validation_evaluates_nothing_again(folder: Path) -> None:
    fitted, calls = module(), []
    state = fitted.states[0]
    evaluate = state.evaluate
    state.evaluate = lambda: calls.append(state.iteration) or evaluate()
    trainer(folder, max_steps=300).fit(fitted)
    assert calls == [100, 200, 300]


@feature
def validation_of_a_network_draws_nothing(folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    with_validation, without = network(), network()
    torch.manual_seed(7)
    trainer(folder, max_steps=20).fit(with_validation)
    assert torch.equal(torch.rand(3), expected)
    trainer(folder, max_steps=20, limit_val_batches=0).fit(without)
    assert_same(state_of(with_validation), state_of(without))


@feature
def check_val_every_n_epoch_counts_evaluations(folder: Path) -> None:
    watch = Watch()
    trainer(folder, watch, max_steps=400, check_val_every_n_epoch=2).fit(module())
    assert watch.steps("validation") == [200, 400]


@feature
def val_check_interval_counts_blocks(folder: Path) -> None:
    watch = Watch()
    trainer(folder, watch, max_steps=200, val_check_interval=1, check_val_every_n_epoch=None).fit(module())
    assert watch.steps("validation") == [50, 100, 150, 200]


@feature
def validate_gives_the_mean_over_problems(folder: Path) -> None:
    fitted = module()
    fitting = trainer(folder)
    fitting.fit(fitted)
    (scores,) = fitting.validate(fitted, verbose=False)
    errors = [fitted.recovered(name).scores["relative_error"] for name in fitted.records]
    assert scores["relative_error"] == pytest.approx(sum(errors) / 3)


@feature
def scores_and_predictions_need_no_data_module(folder: Path) -> None:
    fitted = module()
    fitting = trainer(folder)
    fitting.fit(fitted)
    assert fitting.test(fitted, verbose=False)[0]["rank"] >= 1
    outcomes: Any = fitting.predict(fitted)
    assert [outcome.problem.name for outcome in outcomes] == ["matrix-0", "matrix-1", "matrix-2"]


@feature
def limit_predict_batches_counts_problems(folder: Path) -> None:
    fitted = module()
    fitting = trainer(folder, max_steps=50, limit_predict_batches=2)
    fitting.fit(fitted)
    assert len(fitting.predict(fitted) or []) == 2


@feature
def inference_mode_may_be_off(folder: Path) -> None:
    scores = [trainer(folder, inference_mode=mode).validate(module(), verbose=False) for mode in (True, False)]
    assert scores[0] == scores[1]


# ---------------------------------------------------------------------------------------------------------- metrics


@feature
def callback_metrics_are_filled_without_loggers(folder: Path) -> None:
    watch = Watch()
    fitted = module()
    fitting = trainer(folder, watch, max_steps=200, limit_val_batches=0)
    fitting.fit(fitted)
    last = watch.metrics[-1]
    assert {"loss", "relative_error", "corruption_density", "relative_error/matrix-1"} <= last.keys()
    assert last["relative_error"] == pytest.approx(sum(last[f"relative_error/matrix-{k}"] for k in range(3)) / 3)
    assert last["relative_error/matrix-1"] == pytest.approx(fitted.recovered("matrix-1").scores["relative_error"])


@feature
def many_problems_have_forty_keys(folder: Path) -> None:
    fitted = DoubleOverparameterization(signal=partial(Factor, rank=1), block=5, evaluate_every=5)
    fitted.attach([problem(seed, n=3) for seed in range(100)])
    fitting = trainer(folder, max_steps=5)
    fitting.fit(fitted)
    assert sum(key.startswith("loss/") for key in fitting.callback_metrics) == 40


@feature
def self_log_in_a_subclass(folder: Path) -> None:
    class Mine(DoubleOverparameterization):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)
            self.log("twice", 2.0 * self.trainer.global_step, on_step=True, on_epoch=False, batch_size=1)

        def on_train_epoch_end(self) -> None:
            self.log("at_the_end", 1.0)

    logger = CSVLogger(folder)
    fitting = trainer(folder, max_steps=200, logger=logger, log_every_n_steps=50)
    fitting.fit(module(Mine))
    rows = read(logger)
    assert [int(row["step"]) for row in rows if row.get("twice")] == [50, 100, 150, 200]
    assert float(next(row["twice"] for row in rows if row["step"] == "150")) == 300.0
    assert float(fitting.callback_metrics["at_the_end"]) == 1.0


def read(logger: CSVLogger) -> list[dict[str, str]]:
    import csv

    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@feature
def loggers_count_iterations(folder: Path) -> None:
    logger = CSVLogger(folder)
    trainer(folder, max_steps=250, logger=logger).fit(module())
    assert [int(row["step"]) for row in read(logger) if row["loss"]] == [100, 200, 250]


@feature
def log_every_n_steps_loses_no_evaluation(folder: Path) -> None:
    for every in (1, 30, 10**6):
        logger = CSVLogger(folder, version=str(every))
        trainer(folder, max_steps=200, logger=logger, log_every_n_steps=every).fit(module())
        assert [int(row["step"]) for row in read(logger) if row["loss"]] == [100, 200], every


@feature
def hyperparameters_are_logged(folder: Path) -> None:
    logger = CSVLogger(folder)
    trainer(folder, max_steps=50, logger=logger).fit(module(steps=Nesterov()))
    logger.save()
    written = (Path(logger.log_dir) / "hparams.yaml").read_text()
    assert "dop_lightning.engine.steps.nesterov.Nesterov" in written
    assert "tau: 0.002" in written


# -------------------------------------------------------------------------------------------------------- callbacks


@feature
def early_stopping_stops_within_patience(folder: Path) -> None:
    stop = callbacks.EarlyStopping("corruption_density", mode="min", patience=1)
    fitted = module()
    fitting = trainer(folder, stop, max_steps=20_000)
    fitting.fit(fitted)
    assert fitting.global_step <= 3 * EVERY
    assert {record.status for record in fitted.records.values()} == {"done"}
    again = trainer(folder, max_steps=20_000)
    again.fit(fitted)  # what early stopping ended is not taken up again
    assert again.global_step == fitting.global_step


@feature
def early_stopping_without_validation(folder: Path) -> None:
    stop = callbacks.EarlyStopping("loss", mode="max", patience=2)
    fitting = trainer(folder, stop, max_steps=20_000, limit_val_batches=0)
    fitting.fit(module())
    assert fitting.global_step == 3 * EVERY


@feature
def early_stopping_on_an_unknown_metric_names_the_known(folder: Path) -> None:
    stop = callbacks.EarlyStopping("val_loss", mode="min")
    with pytest.raises(RuntimeError, match=r"`val_loss` which is not available.*`relative_error`"):
        trainer(folder, stop).fit(module())


@feature
def early_stopping_on_one_problem(folder: Path) -> None:
    stop = callbacks.EarlyStopping("relative_error/matrix-2", stopping_threshold=2.0)
    fitting = trainer(folder, stop, max_steps=20_000)
    fitting.fit(module())
    assert fitting.global_step == EVERY


@feature
def model_checkpoint_keeps_the_best(folder: Path) -> None:
    best = callbacks.ModelCheckpoint(folder, monitor="relative_error", save_top_k=2)
    trainer(folder, best, max_steps=400).fit(module())
    assert len(list(folder.glob("*.ckpt"))) == 2
    loaded = DoubleOverparameterization.load_from_checkpoint(best.best_model_path)
    (scores,) = trainer(folder).validate(loaded, verbose=False)
    assert scores["relative_error"] == pytest.approx(float(best.best_model_score), abs=1e-7)


@feature
def model_checkpoint_every_n_train_steps(folder: Path) -> None:
    every = callbacks.ModelCheckpoint(folder, every_n_train_steps=70, save_top_k=-1, filename="{step}")
    trainer(folder, every, max_steps=210).fit(module())
    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["step=140.ckpt", "step=210.ckpt", "step=70.ckpt"]


@feature
def model_checkpoint_every_n_epochs(folder: Path) -> None:
    every = callbacks.ModelCheckpoint(folder, every_n_epochs=2, save_top_k=-1, filename="{epoch}-{step}")
    trainer(folder, every, max_steps=400).fit(module())
    names = sorted(path.name for path in folder.glob("*.ckpt"))
    assert names == ["epoch=1-step=200.ckpt", "epoch=3-step=400.ckpt"]


@feature
def model_checkpoint_last_and_ckpt_path_last(folder: Path) -> None:
    def save() -> callbacks.ModelCheckpoint:
        return callbacks.ModelCheckpoint(folder, save_last=True)

    trainer(folder, save(), max_steps=200).fit(module())
    fitted = module()
    trainer(folder, save(), max_steps=400).fit(fitted, ckpt_path="last")
    straight = module()
    trainer(folder, max_steps=400).fit(straight)
    assert_same(state_of(fitted), state_of(straight))


@feature
def model_checkpoint_by_default(folder: Path) -> None:
    fitting = trainer(folder, max_steps=200, enable_checkpointing=True)
    fitting.fit(module())
    assert (folder / "checkpoints" / "epoch=1-step=200.ckpt").is_file()


@feature
def model_checkpoint_of_weights_alone(folder: Path) -> None:
    light = callbacks.ModelCheckpoint(folder, save_weights_only=True)
    fitted = module()
    trainer(folder, light, max_steps=200).fit(fitted)
    loaded = DoubleOverparameterization.load_from_checkpoint(light.best_model_path)
    assert loaded.recovered("matrix-1").scores == fitted.recovered("matrix-1").scores
    with pytest.raises(KeyError, match="save_weights_only"):
        trainer(folder).fit(module(), ckpt_path=light.best_model_path)


@feature
def learning_rate_monitor(folder: Path) -> None:
    for interval in ("step", "epoch", None):
        logger = CSVLogger(folder, version=str(interval))
        monitor = callbacks.LearningRateMonitor(interval)  # type: ignore[arg-type]
        trainer(folder, monitor, logger=logger, max_steps=200, log_every_n_steps=100).fit(module())
        logger.save()
        rows = [row for row in read(logger) if any("DiscrepantSGD" in key and row[key] for key in row)]
        assert rows, interval
        assert all(int(row["step"]) % 50 == 0 for row in rows), interval


@feature
def timer(folder: Path) -> None:
    clock = callbacks.Timer(duration=timedelta(seconds=60))
    trainer(folder, clock, max_steps=200).fit(module())
    assert 0 < clock.time_elapsed("train") < 60


@feature
def model_summary_counts_parameters(folder: Path) -> None:
    from pytorch_lightning.utilities.model_summary import ModelSummary

    fitted = module()
    expected = 3 * (2 * 12 * 2 + 2 * 12 * 12)
    assert ModelSummary(fitted).total_parameters == expected
    trainer(folder, callbacks.ModelSummary(max_depth=2), max_steps=100).fit(fitted)
    assert ModelSummary(fitted).total_parameters == expected


@feature
def progress_bars(folder: Path) -> None:
    for bar in (callbacks.TQDMProgressBar(), callbacks.RichProgressBar()):
        fitting = trainer(folder, bar, max_steps=200, enable_progress_bar=True)
        fitting.fit(module())
        assert "relative_error" in fitting.progress_bar_metrics


@feature
def device_stats_monitor(folder: Path) -> None:
    logger = CSVLogger(folder)
    monitor = callbacks.DeviceStatsMonitor(cpu_stats=True)
    trainer(folder, monitor, logger=logger, max_steps=100, log_every_n_steps=50).fit(module())
    rows = [row for row in read(logger) if any("cpu_percent" in key and row[key] for key in row)]
    assert {int(row["step"]) for row in rows} <= {0, 50, 100}
    assert rows


@feature
def lambda_callback(folder: Path) -> None:
    seen: list[int] = []
    noting = callbacks.LambdaCallback(on_train_epoch_end=lambda trainer, module: seen.append(trainer.global_step))
    trainer(folder, noting, max_steps=200).fit(module())
    assert seen == [100, 200]


@feature
def on_exception_checkpoint(folder: Path) -> None:
    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == 100:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer(folder, callbacks.OnExceptionCheckpoint(folder), Fails()).fit(module())
    assert DoubleOverparameterization.load_from_checkpoint(folder / "on_exception.ckpt").iteration == 100


@feature
def prediction_writer(folder: Path) -> None:
    class Writer(callbacks.BasePredictionWriter):
        def write_on_batch_end(self, trainer: Any, module: Any, prediction: Any, *args: Any) -> None:
            torch.save(prediction.signal, folder / f"{prediction.problem.name}.pt")

    trainer(folder, Writer("batch")).predict(module(), return_predictions=False)
    assert torch.load(folder / "matrix-2.pt").shape == (12, 12)


# ------------------------------------------------------------------------------------------------------ checkpoints


@feature
def save_checkpoint_is_loaded_with_weights_only(folder: Path) -> None:
    fitted = module(steps=Nesterov())
    fitting = trainer(folder, callbacks.EarlyStopping("loss"), max_steps=200)
    fitting.fit(fitted)
    fitting.save_checkpoint(folder / "x.ckpt")
    content = torch.load(folder / "x.ckpt", weights_only=True)
    keys = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "hyper_parameters"}
    assert keys <= content.keys()
    assert content["global_step"] == 200
    assert set(content["state_dict"]) == set(fitted.state_dict())


def resumed_equals_undisturbed(folder: Path, make: Callable[[], Any], first: int, last: int) -> Any:
    """Fit in two parts, from a file, and at once; return the module of the second part."""
    fitting = trainer(folder, max_steps=first)
    fitting.fit(make())
    fitting.save_checkpoint(folder / "x.ckpt")
    resumed, straight = make(), make()
    again = trainer(folder, max_steps=last)
    again.fit(resumed, ckpt_path=folder / "x.ckpt")
    trainer(folder, max_steps=last).fit(straight)
    assert again.global_step == last
    assert_same(state_of(resumed), state_of(straight))
    assert again.callback_metrics["loss"] == pytest.approx(float(straight.mean_scores["loss"]), abs=0)
    return resumed


@feature
def resumed_from_a_file_a_matrix_equals_undisturbed(folder: Path) -> None:
    resumed_equals_undisturbed(folder, lambda: module(steps=Nesterov()), 130, 400)


@feature
def resumed_from_a_file_a_network_equals_undisturbed(folder: Path) -> None:
    resumed_equals_undisturbed(folder, network, 15, 40)


class Leaves(RecoveryMetrics):
    """Ends the first problem at iteration 10."""

    def on_evaluation(self, trainer: Any, module: Any, batch: Any) -> None:
        if batch.iteration == 10 and "a" in batch.problems.names:
            module.stop_problem("a", "stable")


@feature
def resumed_from_a_file_after_a_problem_has_left(folder: Path) -> None:
    ends = []
    for parts in ([20, 40], [40]):
        fitted, path = network(), None
        for last in parts:
            fitted = network()
            fitting = trainer(folder / str(len(parts)), Leaves(), max_steps=last)
            fitting.fit(fitted, ckpt_path=path)
            path = folder / f"{last}.ckpt"
            fitting.save_checkpoint(path)
        ends.append(state_of(fitted))
        assert [record.iteration for record in fitted.records.values()] == [10, 40]
    assert_same(*ends)


@feature
def resumed_from_the_best_equals_undisturbed(folder: Path) -> None:
    best = callbacks.ModelCheckpoint(folder, monitor="loss", every_n_epochs=2, mode="max", filename="{step}")
    trainer(folder, best, max_steps=400).fit(module())
    resumed, straight = module(), module()
    trainer(folder, max_steps=400).fit(resumed, ckpt_path=best.best_model_path)
    trainer(folder, max_steps=400).fit(straight)
    assert_same(state_of(resumed), state_of(straight))


@feature
def load_from_checkpoint_needs_no_trainer(folder: Path) -> None:
    fitted = network()
    fitting = trainer(folder, max_steps=20)
    fitting.fit(fitted)
    fitting.save_checkpoint(folder / "x.ckpt")
    loaded = DoubleOverparameterization.load_from_checkpoint(folder / "x.ckpt")
    assert torch.equal(loaded("b"), fitted("b"))
    assert loaded.recovered("b").scores == fitted.recovered("b").scores
    assert loaded.hparams["tau"] == 0.5
    assert torch.equal(loaded.predict_step("a", 0).signal, fitted("a"))
    with pytest.raises(ValueError, match=r"name must be the name of a problem, such as 'a', 'b', got 'c'"):
        loaded.recovered("c")


@feature
def load_from_checkpoint_with_a_data_module(folder: Path) -> None:
    from dop_lightning.lightning.data import MatrixDataModule

    data = MatrixDataModule(n=12, rank=1, seeds=2)
    fitted = DoubleOverparameterization(block=50, evaluate_every=EVERY)
    fitting = trainer(folder, max_steps=100)
    fitting.fit(fitted, datamodule=data)
    fitting.save_checkpoint(folder / "x.ckpt")
    again = MatrixDataModule(n=12, rank=1, seeds=2)
    loaded = DoubleOverparameterization.load_from_checkpoint(folder / "x.ckpt", datamodule=again)
    assert loaded.data is again
    assert_same(state_of(loaded), state_of(fitted))


@feature
def a_lambda_must_be_passed_again(folder: Path) -> None:
    fitted = module(signal=lambda problems: Factor(problems, rank=2))
    fitting = trainer(folder, max_steps=100)
    fitting.fit(fitted)
    fitting.save_checkpoint(folder / "x.ckpt")
    with pytest.raises(ValueError, match=r"^signal was a lambda, which a checkpoint cannot store; pass it again"):
        DoubleOverparameterization.load_from_checkpoint(folder / "x.ckpt")
    loaded = DoubleOverparameterization.load_from_checkpoint(folder / "x.ckpt", signal=partial(Factor, rank=2))
    assert_same(state_of(loaded), state_of(fitted))


@feature
def fitting_goes_on_after_load_from_checkpoint(folder: Path) -> None:
    fitting = trainer(folder, max_steps=100)
    fitting.fit(module())
    fitting.save_checkpoint(folder / "x.ckpt")
    loaded, straight = DoubleOverparameterization.load_from_checkpoint(folder / "x.ckpt"), module()
    trainer(folder, max_steps=300).fit(loaded)
    trainer(folder, max_steps=300).fit(straight)
    assert_same(state_of(loaded), state_of(straight))


@feature
def a_checkpoint_folder_is_for_fit_alone(folder: Path) -> None:
    fitting = trainer(folder, CheckpointFolder(), max_steps=100)
    fitting.fit(module())
    path = folder / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"last\.ckpt: a checkpoint folder contains no settings"):
        DoubleOverparameterization.load_from_checkpoint(path)
    resumed, straight = module(), module()
    trainer(folder, max_steps=300).fit(resumed, ckpt_path=path)
    trainer(folder, max_steps=300).fit(straight)
    assert_same(state_of(resumed), state_of(straight))


@feature
def validate_and_predict_take_a_file(folder: Path) -> None:
    fitted = module()
    fitting = trainer(folder, max_steps=100)
    fitting.fit(fitted)
    fitting.save_checkpoint(folder / "x.ckpt")
    fresh = module()
    scores = trainer(folder).validate(fresh, ckpt_path=folder / "x.ckpt", verbose=False)
    assert scores == fitting.validate(fitted, verbose=False)
    (outcome, *_) = trainer(folder).predict(module(), ckpt_path=folder / "x.ckpt") or []
    assert torch.equal(outcome.signal, fitted("matrix-0"))  # type: ignore[union-attr]


@feature
def a_damaged_file_is_named(folder: Path) -> None:
    (folder / "x.ckpt").write_bytes(b"PK\x03\x04 and so on")
    for load in (
        lambda path: trainer(folder).fit(module(), ckpt_path=path),
        DoubleOverparameterization.load_from_checkpoint,
    ):
        with pytest.raises(ValueError, match=r"x\.ckpt: damaged, or not a checkpoint"):
            load(folder / "x.ckpt")


@feature
def a_checkpoint_plugin_writes_the_files(folder: Path) -> None:
    from pytorch_lightning.plugins.io import AsyncCheckpointIO

    plugin = AsyncCheckpointIO()
    best = callbacks.ModelCheckpoint(folder, monitor="loss")
    fitting = trainer(folder, best, max_steps=200, plugins=[plugin])
    fitting.fit(module())
    plugin.teardown()
    assert DoubleOverparameterization.load_from_checkpoint(best.best_model_path).iteration == 200
    assert fitting.strategy.checkpoint_io is plugin


@feature
def a_folder_and_files_live_side_by_side(folder: Path) -> None:
    best = callbacks.ModelCheckpoint(folder / "files", monitor="loss")
    trainer(folder, best, CheckpointFolder(), max_steps=200).fit(module())
    assert Path(best.best_model_path).is_file()
    assert (folder / "checkpoints" / "last.ckpt").is_dir()


# ----------------------------------------------------------------------------------------------------- the module


@feature
def parameters_are_there_before_and_after(folder: Path) -> None:
    fitted = module()
    shapes = [tuple(p.shape) for p in fitted.parameters()]
    assert shapes == [(3, 12, 2), (3, 12, 2), (3, 12, 12), (3, 12, 12)]
    trainer(folder, max_steps=100).fit(fitted)
    assert [tuple(p.shape) for p in fitted.parameters()] == shapes
    names = [
        f"matrix-{k}.{part}" for k in range(3) for part in ("signal.U", "signal.V", "corruption.g", "corruption.h")
    ]
    assert list(fitted.state_dict()) == names


@feature
def state_dicts_move_between_batches(folder: Path) -> None:
    fitted = module()
    trainer(folder, max_steps=100).fit(fitted)
    other = module()
    assert other.load_state_dict(fitted.state_dict()).missing_keys == []
    assert torch.equal(other("matrix-1"), fitted("matrix-1"))
    with pytest.raises(RuntimeError, match=r"missing keys \['matrix-0\.signal\.U'\]"):
        other.load_state_dict({k: v for k, v in fitted.state_dict().items() if k != "matrix-0.signal.U"})


@feature
def modules_are_copied_and_pickled(folder: Path) -> None:
    fitted = module()
    trainer(folder, max_steps=100).fit(fitted)
    torch.save(fitted, folder / "module.pt")
    for other in (copy.deepcopy(fitted), torch.load(folder / "module.pt", weights_only=False)):
        assert_same(state_of(other), state_of(fitted))
        trainer(folder, max_steps=200).fit(other)
        assert other.iteration == 200
    assert fitted.iteration == 100


@feature
def modules_change_their_type(folder: Path) -> None:
    fitted = module()
    trainer(folder, max_steps=100).fit(fitted)
    single = fitted("matrix-0")
    fitted.double()
    assert next(fitted.parameters()).dtype == torch.float64
    assert fitted("matrix-0").dtype == torch.float64
    assert torch.allclose(fitted("matrix-0").float(), single)
    assert fitted.float()("matrix-0").dtype == torch.float32


@feature
def a_process_without_problems_changes_its_type(folder: Path) -> None:
    shared = module()
    shared._build(shared.data, [], [], shared.method, torch.device("cpu"), None)
    shared.double()
    assert list(shared.parameters()) == []


@feature
def the_same_module_is_fitted_further(folder: Path) -> None:
    fitted, straight = module(), module()
    trainer(folder, max_steps=100).fit(fitted)
    trainer(folder, max_steps=300).fit(fitted)
    trainer(folder, max_steps=300).fit(straight)
    assert_same(state_of(fitted), state_of(straight))


@feature
def other_data_of_the_same_names_start_anew(folder: Path) -> None:
    fitted, fresh = module(), module()
    trainer(folder, max_steps=200).fit(fitted)
    others = [replace(problem(seed + 10), name=f"matrix-{seed}", seed=seed) for seed in range(3)]
    for each in (fitted, fresh):
        each.attach(others)
        trainer(folder, max_steps=100).fit(each)
        assert each.iteration == 100
    assert_same(state_of(fitted), state_of(fresh))


@feature
def a_trainer_fits_another_module_afterwards(folder: Path) -> None:
    from pytorch_lightning.demos.boring_classes import BoringModel

    fitting = trainer(folder, max_steps=100)
    fitting.fit(module())
    fitting.fit_loop.max_epochs = -1
    fitting.fit_loop.epoch_loop.max_steps = 3
    other = BoringModel()
    fitting.fit(other)
    assert fitting.global_step == 3


# ------------------------------------------------------------------------------------------- precision and the rest


@feature
def double_precision(folder: Path) -> None:
    for make in (module, network):
        fitted = make()
        fitting = trainer(folder, max_steps=20, precision="64-true")
        fitting.fit(fitted)
        assert fitted(next(iter(fitted.records))).dtype == torch.float64
        assert torch.get_default_dtype() == torch.float32


@feature
def mixed_precision_is_that_of_a_network(folder: Path) -> None:
    fitted = network()
    trainer(folder, max_steps=10, precision="bf16-mixed").fit(fitted)
    assert fitted.roster.separate("a").signal.bf16
    assert fitted("a").dtype == torch.float32


@feature
def profilers(folder: Path) -> None:
    for profiler in ("simple", "advanced"):
        fitting = trainer(folder, max_steps=100, profiler=profiler)
        fitting.fit(module())
        assert "Profiler Report" in fitting.profiler.summary()


@feature
def metrics_of_ones_own_are_monitored(folder: Path) -> None:
    from torchmetrics import MeanAbsoluteError

    best = callbacks.ModelCheckpoint(folder, monitor="error")
    fitting = trainer(folder, best, max_steps=200)
    fitting.fit(module(metrics={"error": MeanAbsoluteError()}))
    assert float(fitting.callback_metrics["error"]) == pytest.approx(float(best.current_score))
    loaded = DoubleOverparameterization.load_from_checkpoint(best.best_model_path)
    assert "error" in loaded.recovered("matrix-0").scores


@feature
def detect_anomaly(folder: Path) -> None:
    trainer(folder, max_steps=10, detect_anomaly=True).fit(network())


@feature
def deterministic(folder: Path) -> None:
    try:
        trainer(folder, max_steps=10, deterministic="warn").fit(module())
    finally:
        torch.use_deterministic_algorithms(False)


@feature
def barebones(folder: Path) -> None:
    fitted = module()
    pl.Trainer(barebones=True, max_steps=100, accelerator="cpu", default_root_dir=folder).fit(fitted)
    assert fitted.iteration == 100


@feature
def reload_dataloaders(folder: Path) -> None:
    fitted = module()
    trainer(folder, max_steps=200, reload_dataloaders_every_n_epochs=1).fit(fitted)
    assert fitted.iteration == 200


@pytest.mark.filterwarnings("ignore:You have turned on `Trainer.detect_anomaly=True`")
@pytest.mark.parametrize("name", FEATURES)
def test_feature(name: str, tmp_path: Path) -> None:
    FEATURES[name](tmp_path)


# ---------------------------------------------------------------------------------------------------------- refused


class Scheduled(DoubleOverparameterization):
    def configure_optimizers(self) -> Any:
        optimizers = super().configure_optimizers()
        return optimizers, [StepLR(optimizers[0], 1)]


def fit(**options: Any) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        more = options.get("callbacks", [])
        trainer(folder, **{**options, "callbacks": more}).fit(module())

    return run


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "two devices": (fit(devices=2), r'strategy must be "problem_parallel" for several devices, got \'DDPStrategy\''),
    "early stopping of several processes": (
        fit(devices=2, strategy="problem_parallel", callbacks=[callbacks.EarlyStopping("loss")]),
        "EarlyStopping requires one process, got 2, .* use StableOutput or VarianceStopping",
    ),
    "model checkpoints of several processes": (
        fit(devices=2, strategy="problem_parallel", callbacks=[callbacks.ModelCheckpoint()], enable_checkpointing=True),
        r"ModelCheckpoint requires one process, got 2, .* use CheckpointFolder",
    ),
    "ddp": (fit(strategy="ddp", devices=1), r'strategy must be "problem_parallel"'),
    "weight averaging": (
        fit(callbacks=[callbacks.StochasticWeightAveraging(1e-3)]),
        "StochasticWeightAveraging does not work with this module: .* averages outputs",
    ),
    "EMA": (fit(callbacks=[callbacks.EMAWeightAveraging()]), "EMAWeightAveraging does not work with this module"),
    "batch size": (fit(callbacks=[callbacks.BatchSizeFinder()]), "BatchSizeFinder .*: a training step has no samples"),
    "learning rate": (
        fit(callbacks=[callbacks.LearningRateFinder()]),
        "LearningRateFinder .* each problem has separate rates",
    ),
    "gradient accumulation": (
        fit(callbacks=[callbacks.GradientAccumulationScheduler({0: 2})]),
        "GradientAccumulationScheduler does not work",
    ),
    "finetuning": (fit(callbacks=[callbacks.BackboneFinetuning()]), "BackboneFinetuning does not work"),
    "pruning": (fit(callbacks=[callbacks.ModelPruning("l1_unstructured", amount=0.5)]), "ModelPruning does not work"),
    "spikes": (fit(callbacks=[callbacks.SpikeDetection()]), "SpikeDetection does not work"),
    "time interval": (
        fit(callbacks=[callbacks.ModelCheckpoint(train_time_interval=timedelta(1))], enable_checkpointing=True),
        r"ModelCheckpoint\(train_time_interval=…\) never saves under manual optimization",
    ),
    "overfit_batches": (fit(overfit_batches=1), "overfit_batches must be 0, got 1"),
    "accumulate": (fit(accumulate_grad_batches=2), "gradient accumulation is not supported for manual optimization"),
    "clipping": (fit(gradient_clip_val=1.0), "gradient clipping is not supported for manual optimization"),
    "half": (fit(precision="bf16-true"), r"trainer.precision must be 32-true, 64-true, or bf16-mixed .*'bf16-true'"),
    "16-mixed": (fit(precision="16-mixed"), r"trainer.precision must be 32-true"),
    "autocast of matrices": (fit(precision="bf16-mixed"), r"with Factor, got 'bf16-mixed'; .* never autocast"),
    "no end": (fit(max_steps=-1, max_epochs=-1), "max_steps must be the number of gradient iterations"),
    "schedulers": (
        lambda folder: trainer(folder).fit(module(Scheduled)),
        "Scheduled.configure_optimizers must return a list of optimizers, got tuple; learning-rate schedulers",
    ),
    "torch.compile": (
        lambda folder: trainer(folder).fit(torch.compile(module())),
        r"torch\.compile cannot compile this module.* compile the network",
    ),
    "a fraction of an epoch": (fit(val_check_interval=0.5), "must be time based, `1.0` or an int"),
    "no data": (
        lambda folder: trainer(folder).fit(DoubleOverparameterization()),
        "DoubleOverparameterization needs datamodule=…",
    ),
    "one folder for two": (
        fit(callbacks=[CheckpointFolder(), callbacks.ModelCheckpoint(save_last=True)], enable_checkpointing=True),
        r"ModelCheckpoint\(save_last=…\) must write elsewhere than .*last\.ckpt",
    ),
}


@pytest.mark.filterwarnings("ignore:You requested an overfit")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (
        name == "two devices" or "several" in name
    ):  # as torchrun starts the first of two processes; Lightning would start this test again
        launched = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}
        for key, value in {
            **launched,
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "12910",
        }.items():
            monkeypatch.setenv(key, value)
    run, line = REFUSED[name]
    with pytest.raises((ValueError, MisconfigurationException), match=line) as caught:
        run(tmp_path)
    assert len(str(caught.value).strip().splitlines()) == 1
    assert not list(tmp_path.glob("*/*.ckpt"))


def test_a_file_of_several_processes_is_refused(tmp_path: Path) -> None:
    fitted = module()
    fitting = trainer(tmp_path, max_steps=50)
    fitting.fit(fitted)
    fitting.strategy.world_size = 2  # type: ignore[attr-defined]
    with pytest.raises(
        ValueError, match=r"save_checkpoint writes a file of one process, got 2, .* use CheckpointFolder"
    ):
        fitting.save_checkpoint(tmp_path / "x.ckpt")


def test_the_table_is_long() -> None:
    assert len(FEATURES) + len(REFUSED) >= 40
