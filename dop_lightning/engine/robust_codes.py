r"""Robust regression onto known components, for new rows of a matrix whose other rows have been recovered.

Shapes: n rows, m columns, r components.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least

ITERATIONS, SMALLEST = 60, 1e-7
"""Defaults for precise codes: the number of iterations, and the last ε."""

AT_ONCE = 2**22
"""Maximum number of entries of rows, or of their Gram matrices, that are processed at once."""


def robust_codes(
    rows: Tensor,
    components: Tensor,
    mask: Tensor | None = None,
    penalty: Tensor | None = None,
    iterations: int = ITERATIONS,
    smallest: float = SMALLEST,
    add: Callable[[Tensor], Tensor] = lambda summand: summand,
) -> Tensor:
    r"""Estimate the codes c of rows ``y ≈ cV + s`` with s sparse, for each row independently.

    ``c = argmin ‖y − cV‖₁ + ½ Σ_i penalty_i·c_i²``.

    With ``penalty = α/σ``, where σ are the singular values of the components V, this is Eq. 8 for one row with known V:
    ``‖X‖_* = min ½(‖U‖² + ‖W‖²)`` over ``UWᵀ = X``, where ``Wᵀ = √σ·V`` and a row of U is ``c/√σ``. These codes are the
    limit of double over-parameterization fitted to these rows, as its initialization tends to zero.

    The solver is iteratively reweighted least squares, with weights ``1/√(r² + ε²)`` and decreasing ε [Daubechies,
    DeVore, Fornasier and Güntürk, 2010].

    Args:
        rows: y, ``(n, m)``.
        components: V, ``(r, m)``, with the same dtype.
        mask: ``(n, m)``, true for observed entries; ``None`` if all are observed.
        penalty: ``(r,)``, at least 0; ``None`` for 0: least absolute deviations.
        iterations: number of reweighting iterations, at least 2. It is fixed, so that the result of a row does not
            depend on the other rows.
        smallest: last ε, relative to the mean |y| of a row; the first is 1.
        add: sums a tensor over the processes that hold parts of the columns; the default is for a single process.

    Returns:
        The codes ``(n, r)``; 0 for rows without observed entries.

    Raises:
        ValueError: the shapes do not match.

    >>> V = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    >>> robust_codes(torch.tensor([[2.0, 2.0, 90.0, 2.0]]), V)
    tensor([[2.0000]])
    """
    if rows.dim() != 2 or components.dim() != 2 or rows.shape[1] != components.shape[1]:
        raise ValueError(
            f"rows and components must have the same number of columns, got {tuple(rows.shape)} and "
            f"{tuple(components.shape)}"
        )
    r = len(components)
    widest = int(add(torch.tensor(rows.shape[1], device=rows.device)))  # so that all processes use the same chunks
    if r == 0 or len(rows) * widest == 0:
        return rows.new_zeros(len(rows), r)
    chunk = max(1, AT_ONCE // max(r**2, widest))
    ridge = rows.new_zeros(r) if penalty is None else penalty.to(rows)
    observed = torch.ones_like(rows) if mask is None else mask.to(rows)
    y = torch.where(observed > 0, rows, 0)
    parts = zip(y.split(chunk), observed.split(chunk), strict=True)
    at_least("iterations", iterations, 2)
    epsilons = [smallest ** (i / (iterations - 1)) for i in range(iterations)]
    return torch.cat([_reweighted(part, components, seen, ridge, epsilons, add) for part, seen in parts])


def _reweighted(
    y: Tensor,
    V: Tensor,
    observed: Tensor,
    ridge: Tensor,
    epsilons: Sequence[float],
    add: Callable[[Tensor], Tensor],
) -> Tensor:
    products = (V[:, None] * V).flatten(0, 1)  # r² m, to compute all Gram matrices in one product
    tiny = torch.finfo(y.dtype).tiny ** 0.5
    size, count = add(y.abs().sum(dim=1, keepdim=True)), add(observed.sum(dim=1, keepdim=True))
    unit = (size / count.clamp_min(1)).clamp_min(tiny)
    weights, codes = observed / unit, y.new_zeros(len(y), len(V))
    for epsilon in epsilons:
        codes = _weighted(y, V, products, weights, ridge, add)
        weights = observed / torch.hypot(torch.addmm(y, codes, V, alpha=-1), unit * epsilon)
    return codes


def _weighted(
    y: Tensor, V: Tensor, products: Tensor, weights: Tensor, ridge: Tensor, add: Callable[[Tensor], Tensor]
) -> Tensor:
    """Solve weighted least squares for each row, ``(n, r)``; a tiny ridge makes the solution unique."""
    r = len(V)
    sums = add(torch.cat([weights @ products.mT, (weights * y) @ V.mT], dim=1))  # a single synchronisation
    gram = sums[:, : r * r].reshape(-1, r, r)
    least = gram.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True) * (len(V) * torch.finfo(y.dtype).eps)
    gram.diagonal(dim1=1, dim2=2).add_(ridge + least.clamp_min(torch.finfo(y.dtype).tiny))
    return torch.linalg.solve_ex(gram, sums[:, r * r :, None]).result[:, :, 0]
