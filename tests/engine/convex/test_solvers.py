"""Solvers of Eq. 8: against other packages, problem by problem, saved and resumed."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.convex import AcceleratedProximalGradient, ConvexState, InexactALM
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.convex import ConvexSuite, corrupted, states
from tests.suites.part import assert_same_bits


class TestInexactALM(ConvexSuite):
    solver = InexactALM

    def test_published_number_of_decompositions_suffices(self) -> None:
        """Lin, Chen and Ma (2010) need about 20 on problems that Eq. 8 recovers."""
        problems = self.easy((1,), n=100)
        state = ConvexState(self.made(), problems)
        state.advance(23)
        X, truth = state.evaluate().signal[0], problems[0].truth
        assert (X - truth).norm() < 1e-5 * truth.norm()

    def test_growth_of_the_penalty_is_not_convergence(self) -> None:
        """The published rule is feasible after these iterations but far from the solution; the solver continues."""
        state = ConvexState(self.made(), ProblemBatch([corrupted(1, 10, 2, 0.3)]))
        while not states(state)[0]["careful"]:
            state.advance(1)
        assert float(state.evaluate().loss) < 1e-10
        feasible = state.evaluate().signal
        assert state.converged == [False]
        state.advance(3000)
        assert state.converged == [True]
        assert (state.evaluate().signal - feasible).norm() > 1e-2 * feasible.norm()


class TestAcceleratedProximalGradient(ConvexSuite):
    solver = AcceleratedProximalGradient


def test_a_state_of_another_solver_is_refused() -> None:
    problems = TestInexactALM().easy((1,))
    saved = ConvexState(InexactALM, problems).problem_state(0)
    with pytest.raises(ValueError, match="state must be of AcceleratedProximalGradient, got a state of 'InexactALM'"):
        ConvexState(AcceleratedProximalGradient, problems).load_problem_state(0, saved)


def test_out_of_memory_restores_the_batch(monkeypatch) -> None:
    state = ConvexState(InexactALM, TestInexactALM().easy())
    state.advance(3)
    before, step, calls = states(state), InexactALM.step, []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *arguments)

    monkeypatch.setattr(InexactALM, "step", failing)
    with pytest.raises(OutOfMemoryError, match=r"3 problems of shape \(30, 30\)"):
        state.advance(5)
    assert state.iteration == 3
    for mine, theirs in zip(before, states(state), strict=True):
        assert_same_bits(mine, theirs)


def test_values_outside_the_dtype_count_as_diverged() -> None:
    """Inside, solvers compute in float64, which has larger numbers."""
    y = torch.full((4, 4), 1e30)
    y[0, 1] = -3e30
    problems = ProblemBatch([Problem("huge", y)])
    state = ConvexState(partial(InexactALM, mu=1e-20, rho=1e20), problems, 1.0)
    for _ in range(4):
        state.advance(3)
        evaluation = state.evaluate()
        assert evaluation.signal.isfinite().all()
        assert evaluation.corruption.isfinite().all()
