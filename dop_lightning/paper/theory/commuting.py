"""Reference solution of Eq. 8 for commuting measurements, by an exact linear program in the eigenvalues.

Shapes: n eigenvalues, m measurements; B ``(m, n)``, y and s ``(m,)``, x ``(n,)``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive


class CommutingOptimum(NamedTuple):
    """Solution of Eq. 8.

    Attributes:
        x: eigenvalues of X, ``(n,)``, at least 0: ``X = Ω·diag(x)·Ωᵀ``.
        s: ``(m,)``.
        nu: dual solution ν, ``(m,)``: ``Bᵀν ≤ 1`` and ``|ν| ≤ λ``.
    """

    x: Tensor
    s: Tensor
    nu: Tensor


def commuting_optimum(B: Tensor, y: Tensor, weight: float) -> CommutingOptimum:
    r"""Solve ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y``, ``X ⪰ 0`` (Eq. 8) for ``Aᵢ = Ω·diag(bᵢ)·Ωᵀ``.

    This is ``min Σx + λ‖s‖₁`` subject to ``Bx + s = y``, ``x ≥ 0``. To see this, let (X, s) be feasible and x the
    diagonal of ``ΩᵀXΩ``. Then x ≥ 0, ``⟨Aᵢ, X⟩ = ⟨diag(bᵢ), ΩᵀXΩ⟩ = ⟨bᵢ, x⟩`` and ``‖X‖_* = tr X = Σx``, so
    ``Ω·diag(x)·Ωᵀ`` is feasible as well, at the same cost. An optimum that is diagonal in Ω therefore exists. If two
    entries of x are positive, it is never unique, because X with other off-diagonal entries (and X ⪰ 0) has the same
    cost. The flow from ``U = γI`` stays diagonal in Ω and thus selects this optimum.

    Args:
        B: eigenvalues bᵢ of the measurements, one row per measurement, ``(m, n)``.
        y: ``(m,)``.
        weight: λ, above 0; 1/α for gradient descent with ratio α.

    Raises:
        ValueError: λ is not above 0, or the shapes do not match.
        ImportError: SciPy is not installed.
        RuntimeError: the solver failed.
    """
    try:
        from scipy.optimize import linprog
    except ImportError as error:
        raise ImportError('commuting_optimum requires SciPy: pip install "dop_lightning[theory]"') from error
    positive("weight", weight)
    if B.dim() != 2 or y.shape != B.shape[:1]:
        raise ValueError(f"B must be (m, n) and y must be (m,), got shapes {tuple(B.shape)} and {tuple(y.shape)}")
    m, n = B.shape
    eye = torch.eye(m, dtype=torch.float64)
    costs = torch.cat([torch.ones(n, dtype=torch.float64), torch.full((2 * m,), weight, dtype=torch.float64)])
    found = linprog(  # variables: x, and the positive and negative parts of s
        costs.numpy(),
        A_eq=torch.cat([B.cpu().double(), eye, -eye], dim=1).numpy(),
        b_eq=y.cpu().double().numpy(),
        bounds=(0, None),
        method="highs-ds",  # the dual simplex method ends at a vertex
    )
    if found.status != 0:
        raise RuntimeError(f"commuting_optimum: {found.message}")
    z = torch.from_numpy(found.x).clamp(min=0)  # the solver may return values such as −1e-14
    return CommutingOptimum(z[:n], z[n : n + m] - z[n + m :], torch.tensor(found.eqlin.marginals))
