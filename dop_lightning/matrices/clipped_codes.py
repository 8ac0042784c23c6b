r"""Robust regression of rows onto known orthonormal components, by gradient steps on clipped residuals.

Shapes: n rows, m columns, q components.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dop_lightning.engine.robust_codes import robust_codes
from dop_lightning.matrices.row_regression import RowRegression

ITERATIONS = 5

STEP = 1.4
"""Step size; since components are orthonormal, steps below 2 are stable."""

CLIP = 1.5
"""Clipping threshold in standard deviations of the residuals of each row."""

SAMPLED = 128
"""Approximate number of columns from which the scale of a row is estimated, if there are more."""

QUARTILE, QUARTILE_OF_NORMAL, MEDIAN_OF_NORMAL = 0.25, 0.3186, 0.6745

MIN_REFIT_RATIO = 2.0
"""Rows whose residuals exceed the noise by this factor are refitted by least absolute deviations."""

BOUND = 100.0
"""Bound on entries in least absolute deviations, as a multiple of the median absolute entry of their row."""

LAST_ITERATIONS = 30

ROUNDS = 4
"""Maximum number of fits to cells with small residuals."""

CLIP_DEVIATIONS = 3.0
"""Bound on small residuals, in standard deviations of the residuals of their row."""


def clipped_codes(
    rows: NDArray[Any], observed: NDArray[Any], regression: RowRegression, device: str = "cpu"
) -> NDArray[Any]:
    r"""Return the scaled codes c of rows ``y ≈ Vc + s`` with sparse s, ``(n, q)``; rows are independent.

    A gradient step of Huber's loss is ``c ← c + λ·Vᵀ clip(y − Vc, ±θ)``. θ follows the scale of the residuals,
    estimated from the lower quartile of their magnitude, so that both decrease at the same rate. Rows that still differ
    from the model are repeatedly refitted to the cells with small residuals, and finally fitted by least absolute
    deviations (:func:`~dop_lightning.engine.robust_codes.robust_codes`), which tolerate more outliers but take much
    longer.

    Args:
        rows: y, ``(n, m)``, 0 if missing.
        observed: ``(n, m)``, true for observed entries.
        regression: regression of rows onto the loadings, whose V has orthonormal columns, or columns of zeros.
        device: device of the gradient steps.
    """
    y, mask = torch.from_numpy(rows), None if observed.all() else torch.from_numpy(observed)
    m = rows.shape[1]
    enough = MIN_REFIT_RATIO * regression.noise**0.5
    every = m // SAMPLED or 1
    known_mask = None if mask is None else mask.to(device)
    codes = _fit_codes(
        y.float().to(device), known_mask, regression.V.float().to(device), regression.noise**0.5, every
    ).to(y)
    residual = torch.addmm(y, codes, regression.V.mT, alpha=-1).abs_()
    known = None if mask is None else observed[:, ::every]
    scale = _scale(np.ascontiguousarray(residual[:, ::every].numpy()), known, QUARTILE, QUARTILE_OF_NORMAL)
    for _ in range(ROUNDS):
        far = np.nonzero(scale > enough)[0]
        if len(far) == 0:
            break
        some, seen = y[far], None if mask is None else observed[far]
        kept = residual[far] <= torch.from_numpy(CLIP_DEVIATIONS * scale[far])[:, None]
        codes[far] = regression.codes(some, kept if mask is None else kept & mask[far])[0]
        residual[far] = (some - codes[far] @ regression.V.mT).abs_()
        scale[far] = _scale(residual[far].numpy(), seen, QUARTILE, QUARTILE_OF_NORMAL)
    far = np.nonzero(scale > enough)[0]
    if len(far):
        codes[far] = _least_deviations(y[far], None if mask is None else mask[far], regression.V)
    return codes.numpy()


def _fit_codes(y: Tensor, mask: Tensor | None, V: Tensor, spread: float, every: int) -> Tensor:
    """Return the codes after all steps; scales are estimated from every ``every``-th column."""
    known = None if mask is None else mask[:, ::every]
    scale = _scale_of(y[:, ::every].abs(), known, 0.5, MEDIAN_OF_NORMAL)
    if not bool(scale.all()):
        size = y.abs()
        scale = torch.where(scale > 0, scale, _scale_of(size, size > 0, 0.5, MEDIAN_OF_NORMAL))
    codes, residual = y.new_zeros(len(y), V.shape[1]), y.clone()
    step: Tensor | float = STEP
    if mask is not None:
        step = STEP / mask.to(y).mean(dim=1, keepdim=True).clamp_min(1 / y.shape[1])
    for _ in range(ITERATIONS):
        bound = (CLIP * scale).clamp_min(spread)[:, None]
        torch.minimum(residual, bound, out=residual)
        codes += (torch.maximum(residual, -bound, out=residual) @ V).mul_(step)
        torch.addmm(y, codes, V.mT, alpha=-1, out=residual)
        if mask is not None:
            residual.mul_(mask)
        scale = _scale_of(residual[:, ::every].abs(), known, QUARTILE, QUARTILE_OF_NORMAL)
    return codes


def _scale_of(size: Tensor, known: Tensor | None, quantile: float, of_normal: float) -> Tensor:
    """Compute :func:`_scale` on any device."""
    if size.device.type == "cpu":  # NumPy partitions faster
        seen = None if known is None else known.numpy()
        return torch.from_numpy(_scale(size.numpy(), seen, quantile, of_normal)).to(size)
    ordered = (size if known is None else size.masked_fill(~known, torch.inf)).sort(dim=1)[0]
    count = (torch.full_like(size[:, 0], size.shape[1]) if known is None else known.sum(dim=1)).long()
    place = (quantile * (count - 1).clamp_min(0)).long()
    found = ordered.gather(1, place[:, None])[:, 0]
    return torch.where(count > 0, found, 0.0) / of_normal


def _scale(size: NDArray[Any], known: NDArray[Any] | None, quantile: float, of_normal: float) -> NDArray[Any]:
    """Return the standard deviation of each row from a quantile of its known magnitudes; 0 if none are known."""
    if known is None:
        place = int(quantile * (size.shape[1] - 1))
        return np.partition(size, place, axis=1)[:, place] / of_normal
    count = known.sum(axis=1)
    place = (quantile * np.maximum(count - 1, 0)).astype(int)
    found = np.sort(np.where(known, size, np.inf), axis=1)[np.arange(len(size)), place]
    return np.where(count > 0, found, 0.0) / of_normal


def _least_deviations(y: Tensor, mask: Tensor | None, V: Tensor) -> Tensor:
    # Entries are bounded because the precision of least absolute deviations is relative to the largest entries.
    size = y.abs().numpy()
    bound = torch.from_numpy(BOUND * MEDIAN_OF_NORMAL * _scale(size, size > 0, 0.5, MEDIAN_OF_NORMAL))[:, None]
    return robust_codes(torch.clamp(y, -bound, bound), V.mT.contiguous(), mask, iterations=LAST_ITERATIONS)
