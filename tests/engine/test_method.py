"""Gradient descent and the convex program as siblings."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.at_once import run_to_end
from dop_lightning.engine.convex import ConvexMethod, InexactALM
from dop_lightning.engine.method import Method
from dop_lightning.engine.state import State
from dop_lightning.engine.steps import Refinement
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch


def problems() -> ProblemBatch:
    U = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ProblemBatch([Problem("a", U @ U.T), Problem("b", 2 * U @ U.T)])


@pytest.mark.parametrize("method", [Method(SymmetricFactor), ConvexMethod(partial(InexactALM, positive=True))])
def test_both_begin_states_that_the_run_loop_advances(method) -> None:
    state = method.begin(problems(), tau=1e-3, alpha=4.0)
    assert isinstance(state, State)
    assert (len(state), state.iteration, state.alpha, state.has_corruption) == (2, 0, [4.0, 4.0], True)
    assert state.settings(1)["alpha"] == 4.0
    ending = run_to_end(method, problems()[0], 20, tau=1e-3, alpha=4.0, block=10)
    assert (ending.names, ending.iteration) == ({0: "a"}, 20)


def test_without_a_corruption_there_is_no_ratio() -> None:
    state = Method(Factor, None).begin(problems(), tau=1e-3, alpha=7.0)
    assert (state.has_corruption, state.alpha) == (False, [1.0, 1.0])
    assert "alpha" not in state.settings(0)


def test_blocks_end_where_the_steps_look() -> None:
    assert Method(Factor).grid is None
    assert Method(Factor, steps=Refinement(every=30, patience=30)).grid == 30
    assert ConvexMethod(InexactALM).grid is None


def test_a_solver_is_not_an_argument_of_gradient_descent() -> None:
    with pytest.raises(TypeError, match="solver"):
        Method(Factor, solver=InexactALM)  # type: ignore[call-arg]
