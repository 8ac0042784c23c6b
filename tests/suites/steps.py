"""Tests for every step rule; subclass the suite to test a new one::

    class TestMySteps(StepRuleSuite):
        def rule(self):
            return MySteps()

Shapes: K problems, n×n matrices.
"""

from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.convex import InexactALM, solve
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, StepRule
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.problems.metrics import relative_error
from dop_lightning.problems.noise import GrossOutliers, MissingEntries
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream

SMALL = 1e-4


def make_problem(
    seed: int, n: int = 24, m: int | None = None, rank: int = 1, ratio: float = 0.05, missing: float = 0.0
) -> Problem:
    """Return a robust PCA problem in float64 that Eq. 8 solves exactly."""
    U = torch.randn(n, rank, dtype=torch.float64, generator=stream(seed, "truth"))
    V = U if m is None else torch.randn(m, rank, dtype=torch.float64, generator=stream(seed, "truth", 1))
    truth = U @ V.T
    corrupted = GrossOutliers(ratio).corrupt(truth, stream(seed, "corruption"))
    mask = MissingEntries(missing).corrupt(truth, stream(seed, "corruption", 1)).mask if missing else None
    return Problem(f"p{seed}", corrupted.observation, truth=truth, mask=mask, seed=seed)


def make_batch(*seeds: int, **settings: Any) -> ProblemBatch:
    return ProblemBatch([make_problem(seed, **settings) for seed in seeds])


def make_state(
    problems: ProblemBatch, rule: StepRule, tau: Any = "auto", signal: Any = SymmetricFactor, **settings: Any
) -> BatchState:
    """Return the state of a batch with initial values of size SMALL."""
    method = Method(partial(signal, scale=SMALL, **settings), partial(HadamardCorruption, scale=SMALL), steps=rule)
    return BatchState(method, problems, tau)


def error_of(state: BatchState) -> Tensor:
    """Return the relative error with respect to the truth, ``(K,)``."""
    truth = torch.stack([problem.truth for problem in state.problems if problem.truth is not None])
    return relative_error(state.signal(0).detach(), truth)


class StepRuleSuite:
    """Tests of blocks, batches, states, and the solution."""

    enough: ClassVar[int] = 600
    """Number of iterations that reach the solution."""
    close: ClassVar[float] = 2e-3
    """Tolerance of the solution, for initial values of size SMALL."""

    def rule(self) -> StepRule:
        raise NotImplementedError

    def test_block_length_does_not_change_results(self) -> None:
        problems = make_batch(0, 1)
        whole, parts = make_state(problems, self.rule()), make_state(problems, self.rule())
        whole.advance(57)
        for length in (1, 13, 6, 30, 7):
            parts.advance(length)
        _assert_equal(whole, parts)

    @pytest.mark.parametrize("growing", [False, True])
    def test_state_resumes_bit_for_bit(self, growing: bool) -> None:
        problems = make_batch(0, 1, rank=3)
        whole, other = (
            make_state(problems, self.rule(), growing=growing, rank=2 if growing else None) for _ in range(2)
        )
        whole.advance(91)
        for k in range(2):
            other.load_problem_state(k, whole.problem_state(k))
        other.iteration = whole.iteration
        whole.advance(60)
        other.advance(60)
        _assert_equal(whole, other)

    @pytest.mark.parametrize("growing", [False, True])
    def test_problems_do_not_influence_each_other(self, growing: bool) -> None:
        settings = {"growing": growing, "rank": 2 if growing else None}
        together = make_state(ProblemBatch([make_problem(0), make_problem(1, rank=3)]), self.rule(), **settings)
        alone = make_state(ProblemBatch([make_problem(1, rank=3)]), self.rule(), **settings)
        together.advance(60)
        alone.advance(60)
        torch.testing.assert_close(together.signal(0)[1], alone.signal(0)[0], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(together.corruption.value()[1], alone.corruption.value()[0], rtol=1e-6, atol=1e-6)

    def test_selected_problems_continue_identically(self) -> None:
        together = make_state(make_batch(0, 1, 2), self.rule())
        together.advance(30)
        chosen = together.select([0, 2])
        together.advance(30)
        chosen.advance(30)
        torch.testing.assert_close(chosen.signal(0), together.signal(0)[[0, 2]], rtol=1e-8, atol=1e-10)

    def test_diverged_problem_is_restored_and_others_continue(self) -> None:
        problems = make_batch(0, 1)
        state, untouched = make_state(problems, self.rule()), make_state(problems, self.rule())
        state.advance(20)
        untouched.advance(20)
        with torch.no_grad():
            state.signal.get_parameter("U")[0] = 1e200
        before = {name: remembered[0].clone() for name, remembered in state.memory.items()}
        assert state.advance(20) == [0]
        untouched.advance(20)
        assert bool((state.signal.get_parameter("U")[0] == 1e200).all())
        assert all(torch.equal(state.memory[name][0], value) for name, value in before.items())
        torch.testing.assert_close(state.signal(0)[1], untouched.signal(0)[1], rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("growing", [False, True])
    def test_snapshot_restores_a_whole_batch(self, growing: bool) -> None:
        """This happens after running out of memory."""
        problems = make_batch(0, 1, rank=3)
        settings = {"growing": growing, "rank": 2 if growing else None}
        state, untouched = make_state(problems, self.rule(), **settings), make_state(problems, self.rule(), **settings)
        snapshot = state.snapshot()
        with torch.no_grad():
            state.method.steps.descend(state, 40)
        state.restore(snapshot, range(2))
        _assert_equal(state, untouched)

    def test_converges_to_the_result_of_small_steps(self) -> None:
        problems = make_batch(0, 1, 2)
        state = make_state(problems, self.rule())
        state.advance(self.enough)
        small = make_state(problems, GradientDescent(), tau=1e-3)
        small.advance(12_000)
        assert relative_error(state.signal(0).detach(), small.signal(0).detach()).max() < self.close

    @pytest.mark.parametrize("alpha", [None, 4.0, 4.5])
    def test_converges_to_the_solution_of_equation_8(self, alpha: float | None) -> None:
        problems = make_batch(0, 1, 2)
        state = make_state(problems, self.rule())
        if alpha is not None:
            state = BatchState(state.method, problems, "auto", alpha)
        state.advance(self.enough)
        optimum = solve(problems, partial(InexactALM, positive=True), alpha=alpha)
        assert relative_error(state.signal(0).detach(), optimum.signal).max() < self.close

    @pytest.mark.parametrize(("signal", "m"), [(SymmetricFactor, None), (Factor, 30)])
    def test_a_growing_rank_gives_the_same_answer(self, signal: type, m: int | None) -> None:
        problems = make_batch(0, 1, n=30, m=m and 36, rank=3 if m is None else 1, ratio=0.03)
        growing = make_state(problems, self.rule(), signal=signal, growing=True, rank=1)
        whole = make_state(problems, self.rule(), signal=signal)
        growing.advance(self.enough)
        whole.advance(self.enough)
        allowed = self.close * (1 if m is None else 3)  # U and V have different random initial values
        assert relative_error(growing.signal(0).detach(), whole.signal(0).detach()).max() < allowed
        truth = 3 if m is None else 1
        assert all(own >= truth for own in growing.signal.columns())  # type: ignore[operator]

    @pytest.mark.parametrize(("signal", "m"), [(SymmetricFactor, None), (Factor, 30)])
    def test_unobserved_entries(self, signal: type, m: int | None) -> None:
        state = make_state(make_batch(0, 1, n=40, m=m and 50, missing=0.2, ratio=0.03), self.rule(), signal=signal)
        state.advance(self.enough)
        assert error_of(state).max() < 10 * self.close
        hidden = ~torch.stack([problem.mask for problem in state.problems if problem.mask is not None])
        assert bool((state.corruption.value()[hidden] == 0).all())

    def test_zero_stays_zero(self) -> None:
        state = make_state(ProblemBatch([Problem("zero", torch.zeros(6, 6))]), self.rule())
        assert state.advance(50) == []
        assert state.signal(0).abs().max() < 1e-5

    def test_dtype_of_the_data_is_kept(self) -> None:
        single = Problem("a", make_problem(0).observation.float())
        state = make_state(ProblemBatch([single]), self.rule())
        state.advance(30)
        assert state.signal(0).dtype == torch.float32
        assert torch.isfinite(state.evaluate().loss).all()


def _assert_equal(one: BatchState, two: BatchState) -> None:
    for k in range(len(one)):
        mine, theirs = one.problem_state(k), two.problem_state(k)
        for kind in ("signal", "corruption", "memory"):
            assert mine[kind].keys() == theirs[kind].keys()
            for name, value in mine[kind].items():
                assert torch.equal(value, theirs[kind][name]), name
