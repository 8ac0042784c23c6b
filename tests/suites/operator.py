"""Tests for every linear operator A; subclass the suite to test a new one, as for ``SignalSuite``.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.model.operators import Operator
from dop_lightning.model.signals import Signal
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import draw_batch

TYPES = [(torch.float32, 1e-4), (torch.float64, 1e-12)]
"""Both types that a problem may have, with a tolerance for rounding of numbers around 1."""

both_types = pytest.mark.parametrize(("dtype", "tolerance"), TYPES, ids=["float32", "float64"])


def assert_close(one: Tensor, other: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


class Entries(Signal):
    """``X = θ``: the simplest signal, for tests of operators."""

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        self.theta = nn.Parameter(draw_batch(problems, problems.signal_shape, salt=3))

    def forward(self, iteration: int = 0) -> Tensor:
        return self.theta * 1.0


class Measurements(Operator):
    """``A(X)ᵢ = ⟨Aᵢ, X⟩`` with normal Aᵢ, seeded per problem: m numbers for an X of any shape."""

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        (m,) = problems.observation.shape[1:]
        self.n = problems.signal_shape
        self.register_buffer("A", draw_batch(problems, (m, *self.n), salt=4).flatten(2))  # K m n

    def forward(self, signal: Tensor) -> Tensor:
        return torch.einsum("kmn,kn->km", self.A, signal.flatten(1))

    def adjoint(self, residual: Tensor) -> Tensor:
        return torch.einsum("kmn,km->kn", self.A, residual).unflatten(1, self.n)


class OperatorSuite:
    """Subclass it and define :meth:`problem` and :meth:`make`."""

    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        """Return a small problem with this seed, name and type."""
        raise NotImplementedError

    def make(self, problems: ProblemBatch) -> Operator:
        """Return the operator under test."""
        raise NotImplementedError

    def problems(self, K: int, dtype: torch.dtype = torch.float64) -> ProblemBatch:
        return ProblemBatch([self.problem(k + 1, f"problem-{k}", dtype) for k in range(K)])

    def signals(self, problems: ProblemBatch, salt: int = 5) -> Tensor:
        return draw_batch(problems, problems.signal_shape, salt)

    def residuals(self, problems: ProblemBatch, salt: int = 6) -> Tensor:
        """Draw residuals, which are 0 at unobserved entries."""
        r = draw_batch(problems, problems.observation.shape[1:], salt)
        return r if problems.mask is None else r * problems.mask

    def test_shapes_and_types(self) -> None:
        for dtype in (torch.float32, torch.float64):
            problems = self.problems(2, dtype)
            A = self.make(problems)
            y, X = A(self.signals(problems)), A.adjoint(self.residuals(problems))
            assert (y.shape, y.dtype) == (problems.observation.shape, dtype)
            assert (X.shape, X.dtype) == ((2, *problems.signal_shape), dtype)

    @both_types
    def test_adjoint(self, dtype: torch.dtype, tolerance: float) -> None:
        problems = self.problems(3, dtype)
        A, X = self.make(problems), self.signals(problems)
        r = draw_batch(problems, problems.observation.shape[1:], salt=6)  # everywhere: A* is defined for any r
        left = (A(X) * r).flatten(1).sum(dim=1)
        right = (X * A.adjoint(r)).flatten(1).sum(dim=1)
        scale = A(X).flatten(1).norm(dim=1) * r.flatten(1).norm(dim=1)
        assert ((left - right).abs() <= tolerance * scale).all(), (left, right)

    @both_types
    def test_linear(self, dtype: torch.dtype, tolerance: float) -> None:
        problems = self.problems(2, dtype)
        A, X, Z = self.make(problems), self.signals(problems), self.signals(problems, salt=7)
        assert_close(A(2.5 * X - Z), 2.5 * A(X) - A(Z), tolerance)
        torch.testing.assert_close(A(torch.zeros_like(X)), torch.zeros_like(problems.observation))

    def test_arguments_are_not_changed(self) -> None:
        problems = self.problems(2)
        A, X, r = self.make(problems), self.signals(problems), self.residuals(problems)
        before_X, before_r = X.clone(), r.clone()
        A(X)
        A.adjoint(r)
        assert torch.equal(X, before_X)
        assert torch.equal(r, before_r)

    @both_types
    def test_problems_of_a_batch_do_not_influence_each_other(self, dtype: torch.dtype, tolerance: float) -> None:
        problems = self.problems(3, dtype)
        A, X, r = self.make(problems), self.signals(problems), self.residuals(problems)
        for k, problem in enumerate(problems):
            alone = self.make(ProblemBatch([problem]))
            assert_close(alone(X[k : k + 1])[0], A(X)[k], tolerance)
            assert_close(alone.adjoint(r[k : k + 1])[0], A.adjoint(r)[k], tolerance)

    @both_types
    def test_add_forward_adds_the_observed_signal(self, dtype: torch.dtype, tolerance: float) -> None:
        problems = self.problems(2, dtype)
        A, signal, r = self.make(problems), Entries(problems), self.residuals(problems)
        with torch.no_grad():
            expected = r + A(signal(0))
            A.add_forward_(r, signal, 0)
        assert_close(r, expected, tolerance)

    def test_no_parameters(self) -> None:
        """A is known: its entries must not be parameters, which an optimizer would update."""
        assert list(self.make(self.problems(1)).parameters()) == []
