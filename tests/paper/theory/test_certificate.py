"""ξ, ν and the residuals of Lemma 1."""

import math

import pytest
import torch
from torch import Tensor

from dop_lightning.model.operators import Identity
from dop_lightning.paper.theory import (
    KKTResiduals,
    advance_with_dual,
    balance,
    commuting_limit,
    commuting_optimum,
    dual_certificate,
    dual_variable,
    in_basis,
    kkt_residuals,
)
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.paper.theory.builders import Case, case
from tests.suites.part import draw

ALPHAS = [0.5, 1.0, 2.0, 3.0]
GAMMAS = [1e-2, 1e-4, 1e-6, 1e-8]


def residuals(c: Case, x: Tensor, g: Tensor, h: Tensor, nu: Tensor, weight: float) -> dict[str, float]:
    problems = c.problems
    X = in_basis(x, c.basis)[None]
    found = kkt_residuals(c.operator(problems), problems.observation, X, g[None], h[None], nu[None], weight)
    return {name: float(value[0]) for name, value in found.by_name().items()}


def optimum(c: Case, weight: float) -> dict[str, Tensor]:
    """The solution of the linear program, its s as g∘g − h∘h."""
    x, s, nu = commuting_optimum(c.B, c.y, weight)
    return {"x": x, "g": s.clamp(min=0).sqrt(), "h": (-s).clamp(min=0).sqrt(), "nu": nu}


@pytest.mark.parametrize("outliers", [3, 12])
def test_residuals_vanish_at_the_optimum(outliers: int) -> None:
    c = case(m=12, outliers=outliers)
    found = residuals(c, **optimum(c, 0.8), weight=0.8)
    assert set(found) == {"feasibility", "dual", "slackness", "sign", "product"}
    assert max(found.values()) < 1e-7


@pytest.mark.parametrize(
    ("change", "grown"),
    [
        ({"x": 1.1}, {"feasibility"}),
        ({"nu": 1.1}, {"dual", "slackness", "sign"}),
        ({"nu": 0.9}, {"slackness", "sign"}),
        ({"nu": -1.0}, {"slackness", "sign"}),
    ],
)
def test_each_residual_detects_its_condition(change: dict[str, float], grown: set[str]) -> None:
    c = case(m=12, outliers=3)
    parts = optimum(c, 0.8)
    for name, factor in change.items():
        parts[name] = parts[name] * factor
    found = residuals(c, **parts, weight=0.8)
    assert {name for name in ("feasibility", "dual", "slackness", "sign", "product") if found[name] > 0.01} >= grown
    assert all(found[name] < 1e-7 for name in {"feasibility", "product"} - grown)


def test_sign_and_product_detect_two_nonzero_factors() -> None:
    c = case(m=12, outliers=3)
    parts = optimum(c, 0.8)
    parts["g"], parts["h"] = (parts["g"].square() + 0.1).sqrt(), (parts["h"].square() + 0.1).sqrt()
    found = residuals(c, **parts, weight=0.8)
    assert found["feasibility"] < 1e-7, "s is the same"
    assert found["product"] == pytest.approx(float((parts["g"] * parts["h"]).norm() / c.y.norm()))


def test_residuals_do_not_depend_on_the_scale_of_the_problem() -> None:
    c = case(m=12, outliers=3)
    parts = {**optimum(c, 0.8), "nu": draw(7, (12,))}
    larger = Case(c.B, c.basis, 100 * c.y, c.x, c.s)
    scaled = {"x": 100 * parts["x"], "g": 10 * parts["g"], "h": 10 * parts["h"], "nu": parts["nu"]}
    assert residuals(c, **parts, weight=0.8) == pytest.approx(residuals(larger, **scaled, weight=0.8), abs=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_limit_tends_to_the_optimum_and_its_residuals_to_0(alpha: float) -> None:
    """Theorem 1: λ = 1/α, and ν(γ) = ξ_∞/log(1/γ) certifies it, at the rate of 1/log(1/γ)."""
    c = case(m=30, outliers=3)
    best = commuting_optimum(c.B, c.y, 1 / alpha)
    assert best.x.any()
    assert best.s.any()
    errors, found = [], []
    for gamma in GAMMAS:
        limit = commuting_limit(c.B, c.y, alpha, gamma)
        errors.append(float((limit.x - best.x).norm() / best.x.norm()))
        nu = dual_certificate(limit.xi[None], gamma)[0]
        found.append(residuals(c, limit.x, limit.g, limit.h, nu, 1 / alpha))
    assert errors[-1] < 1e-4
    assert errors == sorted(errors, reverse=True)
    for name in ("dual", "slackness", "sign", "product"):
        values = [each[name] for each in found]
        assert values == sorted(values, reverse=True), name
        assert values[-1] < 0.1
    assert all(each["feasibility"] < 1e-12 for each in found)
    for name in ("slackness", "sign"):  # c/log(1/γ): halved as γ is squared
        assert found[1][name] / found[3][name] == pytest.approx(2, rel=0.15)
        assert found[3][name] > 0, "a residual that is always 0 shows nothing"


def test_unequal_starts_shift_the_balance() -> None:
    c, alpha, gamma, own = case(m=8, outliers=8, seed=4), 1.0, 1e-12, 1e-6
    weight = float(balance(alpha, gamma, own))
    assert weight == pytest.approx(0.5)
    limit = commuting_limit(c.B, c.y, alpha, gamma, own)
    shifted, unshifted = (commuting_optimum(c.B, c.y, lam).x for lam in (weight, 1 / alpha))
    assert float((shifted - unshifted).norm()) > 0.1
    assert float((limit.x - shifted).norm()) < 0.05 * float((limit.x - unshifted).norm())
    nu = dual_certificate(limit.xi[None], gamma)[0]
    assert residuals(c, limit.x, limit.g, limit.h, nu, weight)["sign"] < 0.1


@pytest.mark.parametrize("start", ["equal", "drawn"])
def test_dual_variable_of_gradient_descent_is_the_sum_of_its_residuals(start: str) -> None:
    c, alpha = case(m=12, outliers=3), 2.0
    state = c.state(1e-3, alpha, tau=1e-3)
    if start == "drawn":
        with torch.no_grad():
            state.corruption.g.copy_(1e-3 * draw(0, (1, 12)))
            state.corruption.h.copy_(1e-3 * draw(1, (1, 12)))
    g0, h0 = state.corruption.g.detach().clone(), state.corruption.h.detach().clone()
    total = advance_with_dual(state, 300) + advance_with_dual(state, 200)
    assert state.iteration == 500
    g, h = state.corruption.g.detach(), state.corruption.h.detach()
    starts = (g0, h0) if start == "drawn" else ()
    xi = dual_variable(g, h, alpha, *starts)
    torch.testing.assert_close(xi, total, rtol=1e-4, atol=1e-5)
    assert float(xi.norm()) > 1


def test_advance_with_dual_equals_advance() -> None:
    c = case(m=12, outliers=3)
    one, other = c.state(1e-3, 2.0, tau=1e-3), c.state(1e-3, 2.0, tau=1e-3)
    advance_with_dual(one, 50)
    other.advance(50)
    assert torch.equal(one.evaluate().signal, other.evaluate().signal)
    assert one.iteration == other.iteration


def test_dual_variable_of_unobserved_entries_is_0() -> None:
    g, h = torch.tensor([[1e-3, 0.0, 2.0]]), torch.tensor([[1e-3, 0.0, 1.0]])
    xi = dual_variable(g, h, torch.tensor([0.5]))
    torch.testing.assert_close(xi, torch.tensor([[0.0, 0.0, math.log(2)]]))


@pytest.mark.slow
def test_gradient_descent_reaches_the_limit_of_the_flow() -> None:
    c, alpha, gamma = case(m=8, outliers=8, seed=4), 1.0, 1e-3
    limit = commuting_limit(c.B, c.y, alpha, gamma)
    state = c.state(gamma, alpha, tau=2e-4)
    state.advance(60_000)
    found = state.evaluate()
    X = in_basis(limit.x, c.basis)
    assert float((found.signal[0] - X).norm()) < 2e-3 * float(X.norm())
    assert float((found.corruption[0] - limit.s).norm()) < 2e-3 * float(limit.s.norm())
    xi = dual_variable(state.corruption.g.detach(), state.corruption.h.detach(), alpha)
    torch.testing.assert_close(xi[0], limit.xi, rtol=2e-3, atol=2e-3)


def general(X: Tensor, nu: Tensor) -> KKTResiduals:
    problems = ProblemBatch([Problem("a", X)])
    zero = torch.zeros_like(X)[None]
    return kkt_residuals(Identity(problems), X[None], X[None], zero, zero, nu[None], 10.0, semidefinite=False)


def test_matrices_that_are_not_semidefinite_have_the_subgradient_of_the_nuclear_norm() -> None:
    W, V = torch.linalg.qr(draw(0, (5, 4))).Q, torch.linalg.qr(draw(1, (7, 4))).Q
    X = W[:, :2] @ torch.tensor([2.0, 0.5], dtype=torch.float64).diag() @ V[:, :2].T
    nu = W[:, :2] @ V[:, :2].T + 0.7 * torch.outer(W[:, 2], V[:, 2])
    exact, larger, turned = general(X, nu), general(X, 1.2 * nu), general(X, W[:, 1:3] @ V[:, 1:3].T)
    assert max(float(value) for value in exact.by_name().values()) < 1e-12
    assert float(larger.dual) == pytest.approx(0.2)
    assert float(larger.slackness) == pytest.approx(0.2)
    assert float(turned.slackness) > 0.5


def test_scales_are_checked() -> None:
    for gamma in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="gamma must be between 0 and 1"):
            dual_certificate(torch.zeros(1, 3), gamma)
        with pytest.raises(ValueError, match="gamma_corruption must be between 0 and 1"):
            balance(1.0, 0.1, gamma)
    torch.testing.assert_close(balance(torch.tensor([1.0, 4.0]), 1e-4, 1e-4), torch.tensor([1.0, 0.25]).double())
