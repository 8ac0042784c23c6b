"""The limit t → ∞ of the flow for commuting measurements."""

import math

import pytest
import torch

from dop_lightning.paper.theory import commuting_limit, commuting_optimum, gradient_flow, in_basis
from tests.paper.theory.builders import case
from tests.suites.part import ROUNDING, draw


def test_flow_converges_to_the_limit() -> None:
    c, alpha, gamma = case(n=6, m=8, rank=2, outliers=2, seed=3), 2.0, 1e-2
    limit = commuting_limit(c.B, c.y, alpha, gamma)
    y = c.problems.observation
    ones = torch.full_like(y, gamma)
    U = gamma * torch.eye(6, dtype=y.dtype)[None]
    flow = gradient_flow(c.operator(c.problems), y, U, ones, ones, alpha, torch.tensor([300.0]))
    for found, expected in (
        (flow.xi[0, 0], limit.xi),
        (flow.signal[0, 0], in_basis(limit.x, c.basis)),
        (flow.corruption[0, 0], limit.s),
        (flow.g[0, 0], limit.g),
        (flow.h[0, 0], limit.h),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 6.0])
def test_limit_solves_the_equations(gamma: float, alpha: float) -> None:
    for seed in range(3):
        c = case(m=12, outliers=12, seed=seed)
        limit = commuting_limit(c.B, c.y, alpha, gamma)
        assert limit.uncertainty < 1e-8
        torch.testing.assert_close(limit.x, gamma**2 * (2 * c.B.mT @ limit.xi).exp(), rtol=1e-9, atol=0)
        torch.testing.assert_close(limit.g, gamma * (alpha * limit.xi).exp(), rtol=1e-9, atol=0)
        torch.testing.assert_close(limit.h, gamma * (-alpha * limit.xi).exp(), rtol=1e-9, atol=0)
        torch.testing.assert_close(c.B @ limit.x + limit.s, c.y, rtol=1e-9, atol=1e-9)


def test_residual_is_the_gradient_of_the_potential() -> None:
    """Φ of the docstring, with other scales; the function returns its minimum."""
    c, alpha, gamma, own = case(n=4, m=6), 1.7, 0.3, 0.05
    xi = (0.3 * draw(0, (6,))).requires_grad_()

    def potential(xi: torch.Tensor) -> torch.Tensor:
        signal = gamma**2 / 2 * (2 * c.B.mT @ xi).exp().sum()
        return signal + own**2 / alpha * (2 * alpha * xi).cosh().sum() - c.y @ xi

    (gradient,) = torch.autograd.grad(potential(xi), xi)
    xi = xi.detach()
    x, s = gamma**2 * (2 * c.B.mT @ xi).exp(), 2 * own**2 * (2 * alpha * xi).sinh()
    torch.testing.assert_close(gradient, c.B @ x + s - c.y, **ROUNDING)
    limit = commuting_limit(c.B, c.y, alpha, gamma, own)
    least = potential(limit.xi)
    assert all(potential(limit.xi + 1e-3 * draw(k, (6,))) > least for k in range(20))


def test_limit_of_an_exact_recovery_reports_the_rounding_error() -> None:
    c = case(m=30, outliers=3)
    optimum = commuting_optimum(c.B, c.y, 2.0)
    assert torch.allclose(optimum.x, c.x, atol=1e-9)
    clear, blurred = (commuting_limit(c.B, c.y, 0.5, gamma) for gamma in (1e-2, 1e-10))
    assert clear.uncertainty < 1e-8
    assert 1e-8 < blurred.uncertainty < math.inf  # what is left to rounding differs from processor to processor
    torch.testing.assert_close(blurred.x, c.x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(blurred.s, c.s, rtol=1e-8, atol=1e-8)


def test_error_falls_as_the_power_of_gamma_predicted_by_the_dual_slack() -> None:
    """``X_γ − X̂ ~ γ^(2·slack)``, slack the least of 1 − (Bᵀν)_j where x_j = 0 and of 1 − α|ν_i| where s_i = 0."""
    c, alpha = case(m=8, outliers=8, seed=4), 1.0
    optimum = commuting_optimum(c.B, c.y, 1 / alpha)
    zero_x, zero_s = optimum.x < 1e-9, optimum.s.abs() < 1e-9
    assert not zero_x.all()
    assert not zero_s.all()
    slacks = [*(1 - c.B.mT @ optimum.nu)[zero_x], *(1 - alpha * optimum.nu.abs())[zero_s]]
    errors = [float((commuting_limit(c.B, c.y, alpha, gamma).x - optimum.x).norm()) for gamma in (1e-8, 1e-10)]
    assert math.log10(errors[0] / errors[1]) / 2 == pytest.approx(2 * float(min(slacks)), rel=0.02)


def test_in_basis() -> None:
    basis, x = torch.linalg.qr(draw(0, (2, 4, 4))).Q, draw(1, (2, 4))
    for k in range(2):
        torch.testing.assert_close(in_basis(x, basis)[k], basis[k] @ x[k].diag() @ basis[k].T, **ROUNDING)


def test_arguments_are_checked() -> None:
    B, y = draw(0, (4, 3)), draw(1, (4,))
    for arguments, message in (
        ((B, y, 0.0, 1e-2), "alpha must be a finite number above 0"),
        ((B, y, 1.0, 0.0), "gamma must be a finite number above 0"),
        ((B, y, 1.0, 1e-2, -1.0), "gamma_corruption must be a finite number above 0"),
        ((B, y[:3], 1.0, 1e-2), r"B must be \(m, n\) and y must be \(m,\), got shapes \(4, 3\) and \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            commuting_limit(*arguments)
