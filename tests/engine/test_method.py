"""Gradient descent and the convex program as siblings."""

from functools import partial
from typing import Any

import pytest
import torch

from dop_lightning.engine.convex import ConvexMethod, InexactALM
from dop_lightning.engine.method import Method
from dop_lightning.engine.runners import run_to_end
from dop_lightning.engine.state import State
from dop_lightning.engine.steps import Refinement
from dop_lightning.model.corruption import Corruption
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch


def problems() -> ProblemBatch:
    U = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ProblemBatch([Problem("a", U @ U.T), Problem("b", 2 * U @ U.T)])


@pytest.mark.parametrize("method", [Method(SymmetricFactor), ConvexMethod(partial(InexactALM, positive=True))])
def test_both_methods_start_states_that_the_run_loop_advances(method) -> None:
    state = method.begin(problems(), tau=1e-3, alpha=4.0)
    assert isinstance(state, State)
    assert (len(state), state.iteration, state.alpha, state.has_corruption) == (2, 0, [4.0, 4.0], True)
    assert state.settings(1)["alpha"] == 4.0
    ending = run_to_end(method, problems()[0], 20, tau=1e-3, alpha=4.0, block=10)
    assert (ending.names, ending.iteration) == ({0: "a"}, 20)


def test_no_ratio_without_a_corruption() -> None:
    state = Method(Factor, None).begin(problems(), tau=1e-3, alpha=7.0)
    assert (state.has_corruption, state.alpha) == (False, [1.0, 1.0])
    assert "alpha" not in state.settings(0)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            {"signal": lambda: None},
            r"signal must be a function of \(problems\) that returns a Signal, got <lambda>\(\) in",
        ),
        ({"corruption": lambda a, b: None}, r"corruption must be a function of \(problems\) that returns a Corruption"),
        ({"operator": 3}, r"operator must be a function of \(problems\), got 3"),
        (
            {"theta_optimizer": lambda: None},
            r"theta_optimizer must be a function of \(parameters\) that returns an Opt",
        ),
        ({"loss": "mean"}, r"loss must be a Loss, got 'mean'"),
        ({"steps": Refinement}, r"steps must be a StepRule, got <class"),
    ],
)
def test_parts_with_other_arguments_are_refused(parts: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Method(**{"signal": Factor, **parts})


def test_result_of_a_factory_is_checked() -> None:
    with pytest.raises(ValueError, match=r"<lambda> must return a Signal, got a Tensor in"):
        Method(lambda problems: torch.ones(2)).begin(problems(), tau=1e-3)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"^Corruption has no parameters; set is_modelled = False"):
        Method(Factor, Corruption).begin(problems(), tau=1e-3, alpha=1.0)
    with pytest.raises(ValueError, match=r"solver must be a function of \(problems\) that returns a ConvexSolver"):
        ConvexMethod(lambda: None)  # type: ignore[arg-type,misc]


def test_blocks_end_at_checks_of_the_step_rule() -> None:
    assert Method(Factor).grid is None
    assert Method(Factor, steps=Refinement(every=30, patience=30)).grid == 30
    assert ConvexMethod(InexactALM).grid is None


def test_a_solver_is_not_an_argument_of_gradient_descent() -> None:
    with pytest.raises(TypeError, match="solver"):
        Method(Factor, solver=InexactALM)  # type: ignore[call-arg]
