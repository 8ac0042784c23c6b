"""Tests for every solver of Eq. 8; subclass the suite to test a new solver.

Shapes: K problems, n rows, m columns.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

import cvxpy as cp
import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import robust_pca
from torch import Tensor

from dop_lightning.engine.convex import ConvexState, SolverFactory, solve
from dop_lightning.engine.convex.solver import ConvexSolver
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.operator import Measurements
from tests.suites.part import assert_same_bits, draw

KINDS = ("identity", "mask", "measurements", "rectangular")


def corrupted(seed: int, n: int, r: int, share: float, m: int | None = None, dtype: torch.dtype = torch.float64):
    """Return a problem ``UUᵀ`` or ``UVᵀ`` with gross outliers."""
    U = draw(seed, (n, r))
    X = U @ U.T if m is None else U @ draw(seed + 90, (r, m))
    where = torch.rand(X.shape, generator=torch.Generator().manual_seed(seed)) < share
    s = 5 * draw(seed + 50, X.shape) * where
    return Problem(f"{seed}", (X + s).to(dtype), X.to(dtype), seed=seed)


def of_kind(kind: str, seed: int = 1) -> ProblemBatch:
    """Return a problem that Eq. 8 does not recover, so that its solution distinguishes solvers."""
    hard = corrupted(seed, 9, 2, 0.25, m=6 if kind == "rectangular" else None)
    if kind == "mask":
        return ProblemBatch([Problem("a", hard.observation, mask=draw(seed + 7, (9, 9)) > -1.0, seed=seed)])
    if kind == "measurements":
        problem = Problem("a", torch.zeros(60, dtype=torch.float64), signal_shape=(8, 8), seed=seed)
        U = draw(seed, (8, 2))
        y = Measurements(ProblemBatch([problem]))((U @ U.T)[None])[0]
        y[::7] += 20.0
        return ProblemBatch([Problem("a", y, signal_shape=(8, 8), seed=seed)])
    return ProblemBatch([hard])


@cache
def reference(kind: str, weight: float, positive: bool) -> Tensor:
    """Return the X of Eq. 8 from an interior-point solver, for a problem of :func:`of_kind`."""
    problems = of_kind(kind)
    operator = Measurements(problems) if kind == "measurements" else None
    n, m = problems.signal_shape
    X = cp.Variable((n, n), PSD=True) if positive else cp.Variable((n, m))
    y = problems.observation[0].numpy()
    if operator is not None:
        basis = torch.eye(n * m, dtype=torch.float64).view(-1, 1, n, m)
        matrix = np.stack([operator(entry)[0].flatten().numpy() for entry in basis], axis=1)
        left = y.flatten() - matrix @ cp.vec(X, order="C")
    else:
        left = cp.vec(y - X, order="C")
        if problems.mask is not None:
            left = cp.multiply(problems.mask[0].flatten().double().numpy(), left)
    program = cp.Problem(cp.Minimize(cp.normNuc(X) + weight * cp.sum(cp.abs(left))))
    program.solve(solver=cp.CLARABEL, tol_gap_rel=1e-7, tol_gap_abs=1e-7, tol_feas=1e-7)
    return torch.as_tensor(X.value)


def relative(X: Tensor, to: Tensor) -> float:
    return float((X - to).norm() / to.norm())


def states(state: ConvexState) -> list[dict[str, Tensor]]:
    return [state.problem_state(k)["tensors"] for k in range(len(state))]


class ConvexSuite:
    """Subclass it and define :attr:`solver`."""

    solver: Callable[..., ConvexSolver]

    def made(self, **settings: object) -> SolverFactory:
        return partial(self.solver, **settings)

    def easy(self, seeds: Sequence[int] = (1, 2, 3), n: int = 30, dtype: torch.dtype = torch.float64) -> ProblemBatch:
        """Return problems that Eq. 8 recovers."""
        return ProblemBatch([corrupted(seed, n, 1, 0.05, dtype=dtype) for seed in seeds])

    # ---------------------------------------------------------------------------------------------------- the solution

    @pytest.mark.parametrize("positive", [False, True])
    @pytest.mark.parametrize("kind", KINDS)
    def test_solution_equals_an_interior_point_method(self, kind: str, positive: bool) -> None:
        if positive and kind == "rectangular":
            pytest.skip("no such problem")
        problems = of_kind(kind)
        operator = {"operator": Measurements} if kind == "measurements" else {}
        weight = max(problems.signal_shape) ** -0.5
        found = solve(problems, self.made(positive=positive, tolerance=1e-8), max_iterations=8000, **operator)
        A = Measurements(problems) if operator else None
        X = reference(kind, weight, positive)
        assert relative(found.signal[0], X) < 1e-4
        assert float(found.loss[0]) < 1e-12
        left = problems.observation - (found.signal if A is None else A(found.signal))
        if problems.mask is not None:
            left = left * problems.mask
            assert not found.corruption[~problems.mask].any()
        torch.testing.assert_close(found.corruption, left, rtol=1e-5, atol=1e-5)
        if positive:
            assert float(torch.linalg.eigvalsh(found.signal).min()) > -1e-9

    @pytest.mark.parametrize("alpha", [2.0, 4.5])
    def test_weight_is_the_inverse_of_alpha(self, alpha: float) -> None:
        problems = of_kind("identity")
        X = solve(problems, self.made(tolerance=1e-9), alpha=alpha, max_iterations=6000).signal[0]
        assert relative(X, reference("identity", 1 / alpha, False)) < 1e-4

    def test_alpha_may_differ_between_problems(self) -> None:
        one, two = of_kind("identity", 1)[0], of_kind("identity", 2)[0]
        both = solve(ProblemBatch([one, two]), self.made(), alpha=[2.0, 4.0], max_iterations=3000).signal
        alone = solve(ProblemBatch([two]), self.made(), alpha=4.0, max_iterations=3000).signal
        assert relative(both[1], alone[0]) < 1e-9

    @pytest.mark.parametrize("svd", ["full", "partial"])
    @pytest.mark.parametrize("positive", [False, True])
    def test_easy_problems_are_recovered_exactly(self, svd: str, positive: bool) -> None:
        problems = self.easy(n=60)
        found = solve(problems, self.made(svd=svd, positive=positive))
        for X, s, problem in zip(found.signal, found.corruption, problems, strict=True):
            assert relative(X, problem.truth) < 1e-5
            assert relative(s, problem.observation - problem.truth) < 1e-5

    def test_another_package_finds_the_same(self) -> None:
        """tensorly counts the nuclear norm of a matrix twice, once for each of its two modes."""
        problems = self.easy((1,))
        weight = 30**-0.5
        tensorly.set_backend("numpy")
        y = problems.observation[0].numpy()
        L, _ = robust_pca(y, reg_E=2 * weight, reg_J=1.0, tol=1e-9, n_iter_max=1000, learning_rate=1.05)
        assert relative(solve(problems, self.made()).signal[0], torch.as_tensor(L)) < 1e-4

    @pytest.mark.parametrize("positive", [False, True])
    def test_partial_decompositions_give_the_same(self, positive: bool) -> None:
        problems = ProblemBatch([corrupted(seed, 60, 3, 0.25) for seed in (1, 2)])
        ends = []
        for svd in ("full", "partial"):
            state = ConvexState(self.made(svd=svd, positive=positive), problems)
            state.advance(60)
            ends.append(state.evaluate().signal)
        assert relative(ends[1], ends[0]) < 1e-6

    def test_zero_is_the_solution_of_zero(self) -> None:
        problems = ProblemBatch([Problem("zero", torch.zeros(6, 6)), *self.easy((1,), n=6, dtype=torch.float32)])
        found = solve(problems, self.made(), max_iterations=3000)
        assert not found.signal[0].any()
        assert not found.corruption[0].any()
        assert found.signal[1].any()

    def test_dtypes_equal_those_of_the_problems(self) -> None:
        state = ConvexState(self.made(), self.easy((1,), dtype=torch.float32))
        state.advance(200)
        found = state.evaluate()
        assert found.signal.dtype == found.corruption.dtype == found.loss.dtype == torch.float32
        assert state.converged == [True]
        assert relative(found.signal[0], state.problems[0].truth) < 1e-5

    def test_scale_has_no_influence(self) -> None:
        problems = self.easy((1,))
        times = ProblemBatch([Problem("times", 1e6 * problems[0].observation)])
        ends = [solve(batch, self.made()).signal for batch in (problems, times)]
        assert relative(ends[1] / 1e6, ends[0]) < 1e-8

    def test_unconverged_problems_are_named(self) -> None:
        with pytest.warns(UserWarning, match="not converged after 2 iterations: 1, 2"):
            solve(self.easy((1, 2)), self.made(), max_iterations=2)

    # ------------------------------------------------------------------------------------------------------- the state

    @pytest.mark.parametrize("svd", ["full", "partial"])
    @pytest.mark.parametrize("iterations", [7, 400])
    def test_problems_of_a_batch_do_not_influence_each_other(self, iterations: int, svd: str) -> None:
        """The problems need different numbers of iterations."""
        problems = ProblemBatch([corrupted(1, 41, 1, 0.05), corrupted(2, 41, 3, 0.2), corrupted(3, 41, 2, 0.1)])
        crowd = ConvexState(self.made(svd=svd), problems)
        crowd.advance(iterations)
        for k in range(3):
            alone = ConvexState(self.made(svd=svd), problems.select([k]))
            alone.advance(iterations)
            assert alone.converged == crowd.converged[k : k + 1]
            assert relative(alone.evaluate().signal[0], crowd.evaluate().signal[k]) < 1e-9

    def test_saved_state_resumes_bit_for_bit(self) -> None:
        problems = self.easy()
        straight = ConvexState(self.made(svd="partial"), problems)
        straight.advance(13)
        saved = [straight.problem_state(k) for k in range(3)]
        straight.advance(9)
        resumed = ConvexState(self.made(svd="partial"), problems)
        for k in (2, 0, 1):
            resumed.load_problem_state(k, saved[k])
        resumed.advance(9)
        for mine, theirs in zip(states(straight), states(resumed), strict=True):
            assert_same_bits(mine, theirs)

    def test_a_saved_state_is_a_copy_of_plain_tensors(self, tmp_path) -> None:
        state = ConvexState(self.made(), self.easy())
        state.advance(3)
        saved = state.problem_state(1)
        before = {name: tensor.clone() for name, tensor in saved["tensors"].items()}
        torch.save(saved, tmp_path / "state.pt")
        state.advance(3)
        assert_same_bits(saved["tensors"], before)
        assert_same_bits(torch.load(tmp_path / "state.pt", weights_only=True)["tensors"], before)

    def test_block_length_has_no_influence(self) -> None:
        one, other = (ConvexState(self.made(), self.easy()) for _ in range(2))
        one.advance(20)
        for iterations in (0, 7, 13):
            other.advance(iterations)
        assert one.iteration == other.iteration == 20
        for mine, theirs in zip(states(one), states(other), strict=True):
            assert_same_bits(mine, theirs)

    def test_selected_problems_continue_from_their_state(self) -> None:
        state = ConvexState(self.made(), self.easy(), alpha=[4.0, 5.0, 6.0])
        state.advance(8)
        part = state.select([2, 0])
        assert part.problems.names == ["3", "1"]
        assert (part.iteration, part.alpha, len(part)) == (8, [6.0, 4.0], 2)
        for k, place in ((2, 0), (0, 1)):
            assert_same_bits(states(state)[k], states(part)[place])
        part.advance(5)
        state.advance(5)
        assert relative(part.evaluate().signal[0], state.evaluate().signal[2]) < 1e-9

    def test_converged_problems_stay_while_others_continue(self) -> None:
        problems = ProblemBatch([corrupted(1, 20, 3, 0.3), corrupted(2, 20, 1, 0.02)])
        state = ConvexState(self.made(), problems)
        while not state.converged[1]:
            state.advance(1)
        assert state.converged == [False, True]
        first, second = states(state)
        state.advance(10)
        assert_same_bits(states(state)[1], second)
        assert not torch.equal(states(state)[0]["signal"], first["signal"])

    def test_nonfinite_problem_is_restored_without_affecting_others(self) -> None:
        state = ConvexState(self.made(), self.easy())
        state.advance(4)
        broken = state.problem_state(1)
        broken["tensors"]["corruption"][0, 0] = torch.nan
        broken["tensors"]["mu"] *= torch.inf
        healthy = ConvexState(self.made(), state.problems)
        healthy.advance(9)
        state.load_problem_state(1, broken)
        assert state.advance(5) == [1]
        assert state.iteration == 9
        after = states(state)
        assert all(torch.equal(after[1][key], value) or key == "corruption" for key, value in broken["tensors"].items())
        for k in (0, 2):
            assert relative(after[k]["signal"], states(healthy)[k]["signal"]) < 1e-9

    def test_interface_of_a_batch(self) -> None:
        state = ConvexState(self.made(), self.easy())
        assert (len(state), state.iteration, state.optimizers, state.has_corruption) == (3, 0, [], True)
        assert state.alpha == [30**0.5] * 3
        assert state.tau == [0.0] * 3
        start = state.evaluate()
        assert (start.iteration, start.signal.shape, start.corruption.shape) == (0, (3, 30, 30), (3, 30, 30))
        torch.testing.assert_close(start.loss, state.problems.observation.square().sum(dim=(1, 2)) / 4)

    def test_state_of_another_object_is_refused(self) -> None:
        state = ConvexState(self.made(), self.easy((1,)))
        with pytest.raises(ValueError, match=r"1: state must be of [A-Za-z]+, got a state of None"):
            state.load_problem_state(0, {"signal": {}})
        other = ConvexState(self.made(), self.easy((1,), n=5)).problem_state(0)
        with pytest.raises(ValueError, match=r"1: state must have the shapes signal \(30, 30\).*, got signal \(5, 5\)"):
            state.load_problem_state(0, other)

    # ------------------------------------------------------------------------------------------------------- arguments

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"svd": "half"}, "svd must be one of full, partial, got 'half'"),
            ({"tolerance": 0.0}, "tolerance must be a finite number above 0, got 0.0"),
            ({"tolerance": float("nan")}, "tolerance must be a finite number above 0, got nan"),
            ({"tolerance": 1e-15}, "tolerance must be at least 1e-12"),
            ({"tolerance": 1.0}, "tolerance must be at least 1e-12"),
            ({"mu": -1.0}, "mu must be a finite number above 0, got -1.0"),
            ({"rho": 1.0}, "rho must be"),
            ({"rho": float("nan")}, "rho must be a finite number above 0, got nan"),
        ],
    )
    def test_wrong_settings_are_named(self, settings: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.solver(self.easy((1,)), **settings)

    def test_wrong_problems_are_named(self) -> None:
        with pytest.raises(ValueError, match="positive requires square matrices, got 9×6"):
            self.solver(of_kind("rectangular"), positive=True)
        with pytest.raises(ValueError, match=r"problems must be matrices \(n, m\), got signals of shape \(1, 4, 4\)"):
            self.solver(ProblemBatch([Problem("a", torch.zeros(1, 4, 4))]))

    @pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), [1.0, float("inf"), 1.0]])
    def test_alpha_out_of_range_is_named(self, alpha: float | list[float]) -> None:
        with pytest.raises(ValueError, match="alpha must be a finite number above 0"):
            ConvexState(self.made(), self.easy(), alpha)

    def test_numbers_of_alphas_and_iterations(self) -> None:
        with pytest.raises(ValueError, match=r"alpha must be one number, or one per problem \(3\), got 2 numbers"):
            ConvexState(self.made(), self.easy(), [1.0, 2.0])
        with pytest.raises(ValueError, match="iterations must be a whole number of at least 0, got -1"):
            ConvexState(self.made(), self.easy()).advance(-1)
        with pytest.raises(ValueError, match="max_iterations must be a whole number of at least 1, got 0"):
            solve(self.easy(), self.made(), max_iterations=0)
