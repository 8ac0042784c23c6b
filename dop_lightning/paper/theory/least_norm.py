"""Appendix A: gradient descent on ``½‖Wθ − b‖²`` with one rate per coordinate, and its weighted least-norm limit.

Shapes: W ``(…, n1, n2)`` of full row rank, n1 < n2; b ``(…, n1)``, θ and the rates ``(…, n2)``.
"""

import torch
from torch import Tensor


def _rates(W: Tensor, rates: Tensor | None) -> Tensor:
    if rates is None:
        return W.new_ones(W.shape[-1])
    if rates.shape[-1:] != W.shape[-1:]:
        raise ValueError(f"rates must have one entry per column of W, {W.shape[-1]}, got shape {tuple(rates.shape)}")
    if not bool((torch.isfinite(rates) & (rates > 0)).all()):
        raise ValueError("rates must be finite and positive")
    return rates


def least_norm_solution(W: Tensor, b: Tensor, rates: Tensor | None = None, start: Tensor | None = None) -> Tensor:
    r"""Return the limit of ``θ ← θ − τ·Λ·Wᵀ(Wθ − b)`` (Eq. 18): ``θ = θ₀ + ΛWᵀ(WΛWᵀ)⁻¹(b − Wθ₀)``.

    For θ₀ = 0 (or any θ₀ in the range of ΛWᵀ), it solves ``min ½‖Λ^(−1/2)θ‖²`` subject to ``Wθ = b`` (Eq. 19). All
    iterates are in θ₀ + range(ΛWᵀ), and the limit is the only point of this set with ``Wθ = b``. In the norm of Λ⁻¹, it
    is the solution closest to θ₀. The component of θ₀ in the null space of W, which is orthogonal to the range in that
    norm, never changes.

    Args:
        W: ``(…, n1, n2)``.
        b: ``(…, n1)``.
        rates: diagonal of Λ, above 0, ``(…, n2)``; ``None`` means the identity, for the least ℓ2-norm.
        start: θ₀, ``(…, n2)``; ``None`` means 0.

    Raises:
        ValueError: a rate is not above 0, or there are not n2 rates.
    """
    diagonal = _rates(W, rates)
    rest = b if start is None else b - (W @ start.unsqueeze(-1)).squeeze(-1)
    back = diagonal.unsqueeze(-1) * W.mT  # n2 n1
    step = (back @ torch.linalg.solve(W @ back, rest.unsqueeze(-1))).squeeze(-1)
    return step if start is None else start + step


def largest_rate(W: Tensor, rates: Tensor | None = None) -> Tensor:
    """Return the bound on τ below which Eq. 18 converges: ``2/λ_max(WΛWᵀ)``, ``(…,)``.

    The residual obeys ``Wθ₊ − b = (I − τ·WΛWᵀ)(Wθ − b)``. It decreases for any initial residual if all eigenvalues of
    this factor are in (−1, 1). The sufficient condition of the paper, ``1/‖WWᵀ‖`` (footnote 9), is half of this bound.

    Raises:
        ValueError: a rate is not above 0, or there are not n2 rates.
    """
    return 2.0 / torch.linalg.eigvalsh((W * _rates(W, rates).unsqueeze(-2)) @ W.mT)[..., -1]
