r"""Dual certificate of Theorem 1: ν from g and h, and its residuals in the conditions of Lemma 1.

Shapes: K problems, X ``(K, n, n')``, ``*m`` the shape of an observation; residuals ``(K,)``, one per problem.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.model.operators import Operator


def _by_problem(numbers: Tensor, like: Tensor) -> Tensor:
    """Reshape a number, or ``(K,)``, to broadcast over ``like``, ``(K, *m)``."""
    return numbers.to(like).expand(len(like)).view(-1, *[1] * (like.dim() - 1))


def dual_variable(
    g: Tensor, h: Tensor, alpha: float | Tensor, g0: Tensor | None = None, h0: Tensor | None = None
) -> Tensor:
    """``ξ = log((g/g₀)/(h/h₀))/(2α)``, ``(K, *m)``: the integral ``−∫ r``, recovered from g and h (Eq. 30).

    ġ = −α·r∘g and ḣ = α·r∘h imply ``log(g/g₀) = αξ = −log(h/h₀)`` for any A and any signal; if g₀ = h₀, they cancel.
    For a gradient step with rate τ, the logarithm is ``−2·artanh(ατr)`` instead of ``−2ατr``: the formula is exact for
    the flow, and has a relative error of about (ατr)² for gradient descent, as long as ατ|r| < 1.

    Args:
        g: ``(K, *m)``.
        h: ``(K, *m)``.
        alpha: ratio of the learning rates, one number or one per problem, ``(K,)``.
        g0: initial g; omit it, together with h0, if both are equal.
        h0: initial h.

    Returns:
        ξ; 0 if g = h = 0, because unobserved entries have no residual.
    """
    tiny = torch.finfo(g.dtype).tiny  # a long step may set an entry to 0
    ratio = g.abs().clamp_min(tiny).log() - h.abs().clamp_min(tiny).log()
    if g0 is not None and h0 is not None:
        ratio = ratio - (g0.abs().log() - h0.abs().log())
    xi = ratio / (2 * _by_problem(torch.as_tensor(alpha), g))
    return torch.where((g == 0) & (h == 0), torch.zeros_like(xi), xi)


def advance_with_dual(state: BatchState, iterations: int) -> Tensor:
    """Do gradient iterations and return ``−Σ τ·r`` over them, ``(K, *m)``: ξ of gradient descent.

    This is the Euler sum of ``−∫ r`` if the loss is a quarter of the sum of squares and the steps are those of plain
    gradient descent with constant τ.
    """
    xi = torch.zeros_like(state.problems.observation)
    r = torch.empty_like(xi)
    tau = _by_problem(torch.tensor(state.tau), xi)
    for _ in range(iterations):
        with torch.no_grad():
            xi.addcmul_(state.residual(r, state.iteration), tau, value=-1)
        state.advance(1)
    return xi


def dual_certificate(xi: Tensor, gamma: float | Tensor) -> Tensor:
    """``ν = ξ/log(1/γ)`` (Eq. 35), ``(K, *m)``, for the initialization ``U = γI``.

    γ is below 1: one number, or one per problem.

    Raises:
        ValueError: γ is not between 0 and 1.
    """
    return xi / _by_problem(_log_inverse("gamma", gamma), xi)


def _log_inverse(name: str, gamma: float | Tensor) -> Tensor:
    """Return ``log(1/γ)``."""
    scale = torch.as_tensor(gamma, dtype=torch.float64)
    if not bool(((scale > 0) & (scale < 1)).all()):
        raise ValueError(f"{name} must be between 0 and 1, got {gamma}")
    return -scale.log()


def balance(alpha: float | Tensor, gamma: float | Tensor, gamma_corruption: float | Tensor) -> Tensor:
    """λ of Eq. 8 for the initialization ``U = γI``, ``g = h = γ_s·1``: ``λ = log(1/γ_s)/(α·log(1/γ))``.

    If s ≠ 0, ``|s| = γ_s²·exp(2α|ξ|)`` remains finite, so that ``α|ξ|/log(1/γ_s) → 1``. In units of ν, this is λ. For
    γ_s = γ, λ = 1/α.

    Raises:
        ValueError: γ or γ_s is not between 0 and 1.
    """
    own = _log_inverse("gamma_corruption", gamma_corruption)
    return own / (torch.as_tensor(alpha, dtype=torch.float64) * _log_inverse("gamma", gamma))


@dataclass(frozen=True)
class KKTResiduals:
    """Residuals of (X, s, ν) in the conditions of Lemma 1, each ``(K,)``, dimensionless, and 0 at an optimum.

    Attributes:
        feasibility: ``‖A(X) + s − y‖/‖y‖``.
        dual: residual of ``A*(ν) ⪯ I``, ``max(λ_max(A*(ν)) − 1, 0)``.
        slackness: ``‖(I − A*(ν))X‖/‖X‖``.
        sign: residual of ``ν ∈ λ·sign(s)``, the larger of ``max(|ν| − λ, 0)/λ`` and ``‖(ν − λ·sign(s))∘s‖/(λ‖s‖)``.
            (Together, they are the entrywise condition; the weight s avoids a threshold for "s = 0".)
        product: residual of ``g∘h = 0``, ``‖g∘h‖/‖y‖``.
    """

    feasibility: Tensor
    dual: Tensor
    slackness: Tensor
    sign: Tensor
    product: Tensor

    def by_name(self) -> dict[str, Tensor]:
        """Return the residuals by name."""
        return asdict(self)


@torch.no_grad()
def kkt_residuals(
    operator: Operator,
    observation: Tensor,
    signal: Tensor,
    g: Tensor,
    h: Tensor,
    nu: Tensor,
    weight: float | Tensor,
    semidefinite: bool = True,
) -> KKTResiduals:
    r"""Evaluate how well ν certifies that ``X`` and ``s = g∘g − h∘h`` solve Eq. 8, by Lemma 1.

    X, s and ν may have any origin: if all residuals are small, (X, s) is nearly optimal.

    Without X ⪰ 0 in Eq. 8 (``UVᵀ``), the conditions on A*(ν) are those of a subgradient of the nuclear norm,
    ``σ_max(A*(ν)) ≤ 1`` and ``A*(ν)·Xᵀ = (XXᵀ)^(1/2)``; their residuals are defined in the same way.

    Args:
        operator: A of the batch.
        observation: y, ``(K, *m)``.
        signal: X, ``(K, n, n')``.
        g: ``(K, *m)``.
        h: ``(K, *m)``.
        nu: ν, ``(K, *m)``; if ``A*(ν)`` is not symmetric, X ⪰ 0 only involves its symmetric part.
        weight: λ of Eq. 8, one number or one per problem.
        semidefinite: whether Eq. 8 includes X ⪰ 0.
    """
    s = g.square() - h.square()
    residual = operator(signal) + s - observation
    dual = operator.adjoint(nu)  # K n n'
    if semidefinite:
        dual = 0.5 * (dual + dual.mT)
        top = torch.linalg.eigvalsh(dual)[:, -1]
        slack = signal - dual @ signal
    else:
        top = torch.linalg.matrix_norm(dual, ord=2)
        W, sigma, _ = torch.linalg.svd(signal, full_matrices=False)
        slack = (W * sigma.unsqueeze(-2)) @ W.mT - dual @ signal.mT
    lam = _by_problem(torch.as_tensor(weight), nu)
    outside = ((nu.abs() - lam) / lam).clamp(min=0).flatten(1).amax(dim=1)
    inside = _ratio(_norm((nu / lam - s.sign()) * s), _norm(s))
    return KKTResiduals(
        feasibility=_ratio(_norm(residual), _norm(observation)),
        dual=(top - 1).clamp(min=0),
        slackness=_ratio(_norm(slack), _norm(signal)),
        sign=torch.maximum(outside, inside),
        product=_ratio(_norm(g * h), _norm(observation)),
    )


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.flatten(1), dim=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return ``part / whole``, or 0 if both are 0."""
    return torch.where(part == 0, torch.zeros_like(part), part / whole)
