"""Appendix A: gradient descent on ``½‖Wθ − b‖²`` with one rate a coordinate ends in a weighted least-norm solution.

Shapes: W ``(…, n1, n2)`` of full row rank, n1 < n2; b ``(…, n1)``, θ and the rates ``(…, n2)``.
"""

import torch
from torch import Tensor


def _rates(W: Tensor, rates: Tensor | None) -> Tensor:
    if rates is None:
        return W.new_ones(W.shape[-1])
    if rates.shape[-1:] != W.shape[-1:]:
        raise ValueError(f"rates must have one entry a column of W, {W.shape[-1]}, got shape {tuple(rates.shape)}")
    if not bool((torch.isfinite(rates) & (rates > 0)).all()):
        raise ValueError("rates must be finite and above 0 everywhere")
    return rates


def least_norm_solution(W: Tensor, b: Tensor, rates: Tensor | None = None, start: Tensor | None = None) -> Tensor:
    r"""Where ``θ ← θ − τ·Λ·Wᵀ(Wθ − b)`` (Eq. 18) ends: ``θ = θ₀ + ΛWᵀ(WΛWᵀ)⁻¹(b − Wθ₀)``.

    From θ₀ = 0 (or any θ₀ in the range of ΛWᵀ) it solves ``min ½‖Λ^(−1/2)θ‖²`` subject to ``Wθ = b`` (Eq. 19). Every
    iterate lies in θ₀ + range(ΛWᵀ), and this is that set's one point with ``Wθ = b``: of all solutions the nearest to
    θ₀, by the norm of Λ⁻¹. The part of θ₀ in the null space of W, orthogonal to the range in that norm, stays for ever.

    Args:
        W: ``(…, n1, n2)``.
        b: ``(…, n1)``.
        rates: the diagonal of Λ, above 0, ``(…, n2)``; ``None`` is the identity: least ℓ2-norm.
        start: θ₀, ``(…, n2)``; ``None`` is 0.

    Raises:
        ValueError: a rate is not above 0, or there are not n2 of them.
    """
    diagonal = _rates(W, rates)
    rest = b if start is None else b - (W @ start.unsqueeze(-1)).squeeze(-1)
    back = diagonal.unsqueeze(-1) * W.mT  # n2 n1
    step = (back @ torch.linalg.solve(W @ back, rest.unsqueeze(-1))).squeeze(-1)
    return step if start is None else start + step


def largest_rate(W: Tensor, rates: Tensor | None = None) -> Tensor:
    """The bound of τ below which Eq. 18 converges: ``2/λ_max(WΛWᵀ)``, ``(…,)``.

    The residual obeys ``Wθ₊ − b = (I − τ·WΛWᵀ)(Wθ − b)``, which shrinks for every residual where all eigenvalues of the
    factor lie within (−1, 1). The paper's sufficient ``1/‖WWᵀ‖`` (footnote 9) is half of it.

    Raises:
        ValueError: a rate is not above 0, or there are not n2 of them.
    """
    return 2.0 / torch.linalg.eigvalsh((W * _rates(W, rates).unsqueeze(-2)) @ W.mT)[..., -1]
