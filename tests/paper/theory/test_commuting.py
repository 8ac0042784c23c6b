"""Eq. 8 for commuting measurements as a linear program."""

import sys

import numpy as np
import pytest
import torch

from dop_lightning.paper.theory import commuting_optimum
from tests.paper.theory.builders import case
from tests.suites.part import draw


@pytest.mark.parametrize("weight", [0.3, 1.0, 3.0])
def test_optimum_and_its_dual_satisfy_lemma_1(weight: float) -> None:
    for seed in range(5):
        c = case(m=12, outliers=6, seed=seed)
        x, s, nu = commuting_optimum(c.B, c.y, weight)
        torch.testing.assert_close(c.B @ x + s, c.y, rtol=1e-9, atol=1e-9)
        assert (x >= 0).all()
        assert (c.B.mT @ nu <= 1 + 1e-9).all()
        assert (nu.abs() <= weight + 1e-9).all()
        torch.testing.assert_close(x * (c.B.mT @ nu), x, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(nu @ s, weight * s.abs().sum(), rtol=1e-8, atol=1e-9)


def test_program_equals_equation_8_over_all_matrices() -> None:
    """Solved by another program, over X ⪰ 0 that need not be diagonal in Ω."""
    cvxpy = pytest.importorskip("cvxpy")
    c, weight = case(n=4, m=6, rank=1, outliers=3), 0.8
    x, s, _ = commuting_optimum(c.B, c.y, weight)
    X, free = cvxpy.Variable((4, 4), PSD=True), cvxpy.Variable(6)
    A = [(c.basis @ b.diag() @ c.basis.T).numpy() for b in c.B]
    constraints = [cvxpy.trace(A[i] @ X) + free[i] == float(c.y[i]) for i in range(6)]
    cost = cvxpy.trace(X) + weight * cvxpy.norm1(free)
    cvxpy.Problem(cvxpy.Minimize(cost), constraints).solve(solver="CLARABEL")
    assert float(x.sum() + weight * s.abs().sum()) == pytest.approx(float(cost.value), rel=1e-6)
    diagonal = np.diag(c.basis.T.numpy() @ X.value @ c.basis.numpy())
    np.testing.assert_allclose(diagonal, x.numpy(), atol=1e-5)
    np.testing.assert_allclose(free.value, s.numpy(), atol=1e-5)


def test_small_weight_leaves_all_to_the_corruption() -> None:
    c = case(m=8)
    x, s, _ = commuting_optimum(c.B, c.y, 1e-3)
    assert not x.any()
    torch.testing.assert_close(s, c.y, rtol=1e-12, atol=1e-12)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="weight must be a finite number above 0, got 0"):
        commuting_optimum(draw(0, (3, 2)), draw(1, (3,)), 0)
    with pytest.raises(ValueError, match=r"B must be \(m, n\) and y must be \(m,\), got shapes \(3, 2\) and \(2,\)"):
        commuting_optimum(draw(0, (3, 2)), draw(1, (2,)), 1.0)


def test_missing_scipy_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r'SciPy: pip install "dop_lightning\[theory\]"'):
        commuting_optimum(draw(0, (3, 2)), draw(1, (3,)), 1.0)
