"""Pruning of Optuna trials: when a score is reported, and how a pruned run ends."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl

from dop_lightning.lightning.callbacks import GracefulStop, OptunaPruning, RecoveredFiles
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.runs.results import read_results


class Trial:
    """Records what is reported, and prunes at a step."""

    def __init__(self, prune_at: int | None = None) -> None:
        self.reports: list[tuple[float, int]] = []
        self.prune_at = prune_at

    def report(self, value: float, step: int) -> None:
        self.reports.append((value, step))

    def should_prune(self) -> bool:
        return self.prune_at is not None and self.reports[-1][1] >= self.prune_at


def make_trainer(step: int = 100, fn: str = "fit", **scores: float) -> Any:
    return SimpleNamespace(
        callback_metrics=scores,
        global_step=step,
        enable_validation=False,
        sanity_checking=False,
        should_stop=False,
        state=SimpleNamespace(fn=fn),
        world_size=1,
    )


def make(trial: Trial, monitor: str = "psnr") -> OptunaPruning:
    return OptunaPruning(trial, monitor)  # type: ignore[arg-type]


MODULE: Any = SimpleNamespace(stopped_by="")


def test_an_epoch_is_reported_once_with_the_iterations_as_step() -> None:
    trial = Trial()
    pruning, trainer = make(trial), make_trainer(100, psnr=20.0)
    pruning.on_train_epoch_end(trainer, MODULE)
    pruning.on_train_epoch_end(trainer, MODULE)
    trainer.global_step, trainer.callback_metrics = 200, {"psnr": 21.5}
    pruning.on_train_epoch_end(trainer, MODULE)
    pruning.on_fit_end(trainer, MODULE)
    assert trial.reports == [(20.0, 100), (21.5, 200)]
    assert not trainer.should_stop
    assert pruning.value() == 21.5


def test_with_validation_on_each_validation_is_reported() -> None:
    trial = Trial()
    pruning, trainer = make(trial, "val_psnr"), make_trainer(100, psnr=1.0)
    trainer.enable_validation = True
    pruning.on_train_epoch_end(trainer, MODULE)  # the validation comes later
    trainer.sanity_checking = True
    pruning.on_validation_end(trainer, MODULE)
    trainer.sanity_checking = False
    assert trial.reports == []
    trainer.global_step, trainer.callback_metrics = 200, {"psnr": 1.0, "val_psnr": 20.0}
    pruning.on_validation_end(trainer, MODULE)
    pruning.on_train_epoch_end(trainer, MODULE)
    trainer.global_step = 300  # an epoch without a validation: the score is an old one
    pruning.on_train_epoch_end(trainer, MODULE)
    assert trial.reports == [(20.0, 200)]


def test_a_validation_outside_of_fit_is_not_reported() -> None:
    trial = Trial()
    make(trial).on_validation_end(make_trainer(100, "validate", psnr=20.0), MODULE)
    assert trial.reports == []


def test_pruned_trial_stops_the_run_and_reports_the_iteration() -> None:
    pruning, trainer = make(Trial(prune_at=200)), make_trainer(100, psnr=20.0)
    pruning.on_train_epoch_end(trainer, MODULE)
    assert not trainer.should_stop
    trainer.global_step = 200
    pruning.on_train_epoch_end(trainer, MODULE)
    assert trainer.should_stop
    with pytest.raises(optuna.TrialPruned, match=r"^pruned at iteration 200 with psnr = 20$"):
        pruning.value()


@pytest.mark.parametrize("monitor", ["psrn", "quality"])
def test_unknown_monitor_is_refused_with_a_list(monitor: str) -> None:
    pruning, trainer = make(Trial(), monitor), make_trainer(psnr=20.0, ssim=0.5, loss=1.0)
    meant = r"; did you mean 'psnr'\?" if monitor == "psrn" else ""
    message = rf"^monitor must be one of loss, psnr, ssim, got '{monitor}'{meant}$"
    with pytest.raises(ValueError, match=message):
        pruning.on_train_epoch_end(trainer, MODULE)
    with pytest.raises(ValueError, match=message):
        make(Trial(), monitor).on_validation_end(trainer, MODULE)
    trainer.enable_validation = True  # it may still come
    late = make(Trial(), monitor)
    late.on_train_epoch_end(trainer, MODULE)
    late.on_fit_end(trainer, MODULE)
    with pytest.raises(ValueError, match=message):
        late.value()


def test_a_run_without_an_evaluation_is_pruned() -> None:
    trial = Trial()
    pruning, trainer = make(trial), make_trainer()
    pruning.on_train_epoch_end(trainer, MODULE)
    pruning.on_fit_end(trainer, MODULE)
    assert trial.reports == []
    with pytest.raises(optuna.TrialPruned, match="without an evaluation"):
        pruning.value()


def test_several_processes_are_refused() -> None:
    trainer = make_trainer()
    trainer.world_size = 2
    with pytest.raises(ValueError, match=r"^OptunaPruning supports one process, got a trainer with 2, .* one trial"):
        make(Trial()).setup(trainer, MODULE, "fit")


class Epochs(DoubleOverparameterization):
    """Ends an epoch of training at each evaluation."""

    def training_step(self, batch: int, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        if self.iteration % self.evaluate_every == 0:
            self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True


@pytest.fixture
def fit(tmp_path: Path, matrices) -> Callable[..., DoubleOverparameterization]:
    def fit(*callbacks: pl.Callback) -> DoubleOverparameterization:
        module = Epochs(tau=2e-3, block=50, evaluate_every=100)
        trainer = pl.Trainer(
            max_steps=400, callbacks=[*callbacks, RecoveredFiles()], default_root_dir=tmp_path, accelerator="cpu",
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=matrices())
        return module

    return fit


@pytest.fixture
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.mark.usefixtures("_quiet")
def test_a_study_prunes_runs_that_end_cleanly(fit, tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        pruning = OptunaPruning(trial, "relative_error")
        module = fit(pruning)
        assert {record.iteration for record in module.records.values()} == {200 if trial.number else 400}
        return pruning.value()

    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=1000))
    study.optimize(objective, n_trials=1)
    study.pruner = optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=150)
    study.optimize(objective, n_trials=1)
    whole, pruned = study.trials
    assert whole.state == optuna.trial.TrialState.COMPLETE
    assert list(whole.intermediate_values) == [100, 200, 300, 400]
    assert whole.value == whole.intermediate_values[400]
    assert pruned.state == optuna.trial.TrialState.PRUNED
    assert pruned.intermediate_values == {step: whole.intermediate_values[step] for step in (100, 200)}
    assert [result["iterations"] for result in read_results(tmp_path)] == [200] * 3


@pytest.mark.usefixtures("_quiet")
def test_an_interrupted_run_ends_the_study(fit, stop_at) -> None:
    def objective(trial: optuna.Trial) -> float:
        pruning = OptunaPruning(trial, "loss")
        fit(pruning, GracefulStop(), stop_at(200, signal.SIGINT))
        return pruning.value()

    study = optuna.create_study()
    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=3)
    assert len(study.trials) == 1
