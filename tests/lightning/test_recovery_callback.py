"""Callbacks that follow problems."""

import inspect
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from dop_lightning.engine.state import Evaluation
from dop_lightning.lightning.callbacks import StableOutput
from dop_lightning.lightning.module import recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback, require_hooks
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.lightning.callbacks.builders import look_at


def test_the_arguments_of_version_0_1_still_work_with_a_warning() -> None:
    seen: list[Any] = []
    with pytest.warns(DeprecationWarning, match=r"^Old\.on_evaluation\(trainer, module, problems, .* version 0\.3"):

        class Old(RecoveryCallback):
            def on_evaluation(self, trainer, module, problems, evaluation, scores) -> None:  # type: ignore[override]
                seen.append((problems.names, evaluation.iteration, scores))

    problems = ProblemBatch([Problem("a", torch.zeros(2, 2))])
    zeros = torch.zeros(1, 2, 2)
    batch = look_at(problems, Evaluation(30, zeros, zeros, torch.zeros(1)), [{"loss": 1.0}])
    Old().on_evaluation(None, None, batch)  # type: ignore[arg-type]
    assert seen == [(["a"], 30, [{"loss": 1.0}])]


def test_hooks_with_other_arguments_are_refused() -> None:
    class Ours(RecoveryCallback):
        def on_problem_end(self, trainer) -> None: ...  # type: ignore[override]

    class Lightnings(Callback):
        def on_train_start(self) -> None: ...  # type: ignore[override]

    require_hooks([StableOutput(), EarlyStopping("loss"), ModelCheckpoint()])
    with pytest.raises(ValueError, match=r"Ours\.on_problem_end must take \(self, trainer, module, outcome\), got on_"):
        require_hooks([Ours()])
    with pytest.raises(ValueError, match=r"Lightnings\.on_train_start must take \(self, trainer, pl_module\), got on_"):
        require_hooks([Lightnings()])


def test_hooks_do_nothing_by_default() -> None:
    callback = RecoveryCallback()
    assert callback.on_evaluation(None, None, None) is None  # type: ignore[arg-type,func-returns-value]
    assert callback.problem_state("a") == {}
    assert list(inspect.signature(StableOutput.on_evaluation).parameters) == ["self", "trainer", "module", "batch"]


def test_other_modules_are_refused() -> None:
    with pytest.raises(TypeError, match="requires a DoubleOverparameterization module, got LightningModule"):
        recovery_module(LightningModule())
