"""Closed form of the flow for commuting measurements, Eqs. 29 and 30, and its limit t → ∞.

Shapes: K problems, n eigenvalues, m measurements; B ``(m, n)`` with ``Aᵢ = Ω·diag(bᵢ)·Ωᵀ`` and rows bᵢ.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive
from dop_lightning.model.operators import Operator

ITERATIONS = 500
"""Maximum number of Newton steps, by far more than γ = 1e-10 requires."""

NEWTON_TOLERANCE = 1e-9
"""Newton's method has converged if the logarithms of all eigenvalues change by at most this amount."""

ROUNDING = 256 * torch.finfo(torch.float64).eps
"""Rounding error of a residual relative to its terms; exponents of up to 2·log(1/γ) ≈ 50 amplify it."""


def closed_form(
    operator: Operator, xi: Tensor, X0: Tensor, g0: Tensor, h0: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the flow as a function of ξ: ``X = exp(A*ξ)·X₀·exp(A*ξ)``, ``g = g₀∘exp(αξ)``, ``h = h₀∘exp(−αξ)``.

    These are Eqs. 29 and 30. The formulas for g and h hold for every A, that for X if the Aᵢ are symmetric and commute.
    (If A*(ξ) is not symmetric, its symmetric part is used, as in the flow.)

    Args:
        operator: A of the batch.
        xi: ``ξ = −∫ r``, ``(K, m)``.
        X0: initial X, ``(K, n, n)``.
        g0: initial g, ``(K, m)``.
        h0: initial h, ``(K, m)``.
        alpha: ratio of the learning rates, above 0.

    Returns:
        X ``(K, n, n)``, g and h ``(K, m)``.
    """
    D = operator.adjoint(xi)
    E = torch.linalg.matrix_exp(0.5 * (D + D.mT))
    growth = positive("alpha", alpha) * xi
    return E @ X0 @ E, g0 * growth.exp(), h0 * (-growth).exp()


def in_basis(x: Tensor, basis: Tensor) -> Tensor:
    """Return ``X = Ω·diag(x)·Ωᵀ`` for eigenvalues ``(…, n)`` and eigenvectors ``(…, n, n)`` in columns."""
    return (basis * x.unsqueeze(-2)) @ basis.mT


class CommutingLimit(NamedTuple):
    """Limit t = ∞ of the flow from ``U = γI``, ``g = h = γ_s·1``.

    Attributes:
        xi: ξ_∞, ``(m,)``.
        x: eigenvalues of X_∞, ``(n,)``.
        g: ``(m,)``.
        h: ``(m,)``.
        uncertainty: error of the logarithms of x, g and h due to rounding; see :func:`commuting_limit`.
    """

    xi: Tensor
    x: Tensor
    g: Tensor
    h: Tensor
    uncertainty: float

    @property
    def s(self) -> Tensor:
        """``g∘g − h∘h``, ``(m,)``."""
        return self.g.square() - self.h.square()


def commuting_limit(
    B: Tensor, y: Tensor, alpha: float, gamma: float, gamma_corruption: float | None = None
) -> CommutingLimit:
    r"""Compute the limit t → ∞ of the flow for ``Aᵢ = Ω·diag(bᵢ)·Ωᵀ`` without integration.

    In the basis Ω, Eqs. 29 and 30 read ``x = γ²·exp(2Bᵀξ)``, ``g = γ_s·exp(αξ)``, ``h = γ_s·exp(−αξ)``. Therefore,
    ξ̇ = −r is the gradient flow of a potential with gradient ``r(ξ) = Bx + g∘g − h∘h − y``:

    ``Φ(ξ) = γ²/2·Σ exp(2Bᵀξ) + γ_s²/α·Σ cosh(2αξ) − ⟨y, ξ⟩``.

    The cosh makes Φ strictly convex and coercive. For any y, B and γ, there is a unique ξ_∞, the minimum of Φ, at which
    ``A(X) + s = y``. (This does not require the assumption that the limits in t exist and solve Eq. 3.)

    Newton steps δ are damped by ``log(1 + d)/d``, where d is the largest change of an exponent. Along tδ, the curvature
    grows at most by ``exp(t·d)``, and this t minimises the resulting bound on Φ. Every step therefore descends, without
    a line search, in which differences of Φ would be lost to rounding. The Hessian,
    ``2B·diag(x)·Bᵀ + 2α·diag(g² + h²)``, is never formed. Its square root is factorized instead, because its entries
    may span all orders of magnitude between γ² and 1.

    If fewer than m numbers determine y (an exact recovery), only vanishing entries determine some directions of ξ. As
    γ² approaches the rounding error of y, these are lost: X and s are then right to rounding, but ξ is one of many, and
    ``uncertainty`` is large.

    Args:
        B: ``(m, n)``.
        y: ``(m,)``.
        alpha: α, above 0.
        gamma: γ of ``U = γI``, above 0.
        gamma_corruption: γ_s of ``g = h = γ_s·1``, above 0. Defaults to γ.

    Raises:
        ValueError: a number is not above 0, or the shapes do not match.
        RuntimeError: Newton's method does not converge, because the arguments differ by too many orders of magnitude.
    """
    if B.dim() != 2 or y.shape != B.shape[:1]:
        raise ValueError(f"B must be (m, n) and y must be (m,), got shapes {tuple(B.shape)} and {tuple(y.shape)}")
    positive("alpha", alpha)
    log_x0 = 2 * math.log(positive("gamma", gamma))
    log_g0 = log_x0 / 2 if gamma_corruption is None else math.log(positive("gamma_corruption", gamma_corruption))
    B, y = B.double(), y.double()
    xi = torch.zeros_like(y)
    before = math.inf
    for _ in range(ITERATIONS):
        x = (log_x0 + 2 * B.mT @ xi).exp()
        gg, hh = (2 * log_g0 + 2 * alpha * xi).exp(), (2 * log_g0 - 2 * alpha * xi).exp()
        r = B @ x + gg - hh - y
        root = torch.cat([(2 * x).sqrt().unsqueeze(1) * B.mT, (2 * alpha * (gg + hh)).sqrt().diag()])  # n+m m
        R = torch.linalg.qr(root).R
        step = -torch.cholesky_solve(r.unsqueeze(1), R, upper=True).squeeze(1)
        d = 2 * float(torch.cat([B.mT @ step, alpha * step]).abs().max())
        if not math.isfinite(d):
            break
        xi = xi + step * (math.log1p(d) / d if d > 0 else 1.0)
        zero = r.abs() <= ROUNDING * (B.abs() @ x + gg + hh + y.abs())
        if d <= NEWTON_TOLERANCE or (bool(zero.all()) and d > 0.5 * before):
            g, h = (log_g0 + alpha * xi).exp(), (log_g0 - alpha * xi).exp()
            return CommutingLimit(xi, (log_x0 + 2 * B.mT @ xi).exp(), g, h, d)
        before = d
    raise RuntimeError(f"commuting_limit did not converge at gamma = {gamma:g}, alpha = {alpha:g}")
