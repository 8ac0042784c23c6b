"""Callbacks that follow problems."""

import inspect
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule

from dop_lightning.engine.state import Evaluation
from dop_lightning.lightning.callbacks import StableOutput
from dop_lightning.lightning.module import recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
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
    look = look_at(problems, Evaluation(30, zeros, zeros, torch.zeros(1)), [{"loss": 1.0}])
    Old().on_evaluation(None, None, look)  # type: ignore[arg-type]
    assert seen == [(["a"], 30, [{"loss": 1.0}])]


def test_hooks_do_nothing_by_default() -> None:
    callback = RecoveryCallback()
    assert callback.on_evaluation(None, None, None) is None  # type: ignore[arg-type,func-returns-value]
    assert callback.problem_state("a") == {}
    assert list(inspect.signature(StableOutput.on_evaluation).parameters) == ["self", "trainer", "module", "look"]


def test_other_modules_are_refused() -> None:
    with pytest.raises(TypeError, match="follows DoubleOverparameterization, got LightningModule"):
        recovery_module(LightningModule())
