r"""Recover lost rows, in which nearly all entries were classified as outliers and L is wrong.

A row of unusual magnitude, or with unusually many outliers, may be fitted so badly while the threshold decreases that
its clean entries exceed the threshold as well. They are then ignored, and the row cannot recover. Given the right
singular vectors V from the other rows, its codes follow by least absolute deviations, which involve no threshold.

Shapes: n rows, m columns, r the rank.
"""

import torch
from torch import Tensor

from dop_lightning.engine.projections.low_rank import LowRank, orthonormal
from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, SingleProcess
from dop_lightning.engine.robust_codes import robust_codes

MIN_STANDARD_DEVIATIONS = 4.0
"""Standard deviations of a binomial variable by which the outlier count of a lost row exceeds its mean."""

MAX_LOST_FRACTION = 0.2
"""Maximum fraction of lost rows; if there are more, the model does not fit and none is refitted."""

MAX_ERROR_RATIO = 0.9999
"""Codes are replaced only if the sum of absolute residuals falls below this multiple of the previous sum."""


def lost_rows(outliers: Tensor, observed: Tensor, ranks: SingleProcess = SINGLE_PROCESS) -> Tensor:
    """Return the positions of rows with significantly more outliers than the median row.

    Args:
        outliers: number of outliers in each row, ``(n,)``.
        observed: number of observed entries of each row, ``(n,)``.
        ranks: processes that share the rows.
    """
    counts, size = outliers.double(), observed.double()
    share = ranks.median(counts / size.clamp_min(1))
    spread = (size * share * (1 - share)).clamp_min(1).sqrt()
    return torch.nonzero(counts > size * share + MIN_STANDARD_DEVIATIONS * spread).flatten()


def refitted(
    rows: Tensor, mask: Tensor | None, codes: Tensor, right: Tensor, ranks: SingleProcess = SINGLE_PROCESS
) -> Tensor:
    """Refit rows by least absolute deviations and return their codes, ``(q, r)``; keep codes that fit better already.

    Args:
        rows: rows of the observation, ``(q, m)``.
        mask: ``(q, m)``, true for observed entries; ``None`` if all are observed.
        codes: previous codes, ``(q, r)``.
        right: right singular vectors, ``(m, r)``.
        ranks: processes that share the entries of each row.
    """
    found = robust_codes(rows, right.mT.contiguous(), mask, add=ranks.sum)

    def residual(of: Tensor) -> Tensor:
        r = (rows - of @ right.mT).abs()
        return ranks.sum((r if mask is None else r * mask).sum(dim=1))

    better = residual(found) < MAX_ERROR_RATIO * residual(codes)
    return torch.where(better[:, None], found, codes)


def with_rows(
    estimate: LowRank, rows: Tensor, observed: Tensor, mask: Tensor | None, ranks: SingleProcess = SINGLE_PROCESS
) -> tuple[LowRank, bool]:
    """Refit some rows of the estimate to their observation; return the estimate and whether any row changed.

    Args:
        estimate: L.
        rows: positions of the rows on this rank, ``(q,)``.
        observed: these rows of D, ``(q, m)``.
        mask: ``(q, m)``, true for observed entries; ``None`` if all are observed.
        ranks: processes that share the rows.
    """
    r, m = estimate.rank, len(estimate.right)
    left = estimate.left * estimate.values.to(estimate.left)
    before = left[rows, :r]
    after = refitted(observed, mask, before, estimate.right[:, :r])
    if not int(ranks.sum((before != after).sum())):
        return estimate, False
    left[rows, :r] = after
    left[rows, r:] = 0
    ones = torch.ones_like(estimate.values)
    return orthonormal(left, ones, estimate.right[ranks.own(m)], r, ranks).gather_right(m, ranks), True


def with_columns(
    estimate: LowRank, columns: Tensor, observed: Tensor, mask: Tensor | None, ranks: SingleProcess = SINGLE_PROCESS
) -> tuple[LowRank, bool]:
    """Refit some columns of the estimate to their observation; return the estimate and whether any column changed.

    Args:
        estimate: L.
        columns: positions of the columns, ``(q,)``.
        observed: these columns of D, ``(n, q)``, with the rows of this rank.
        mask: ``(n, q)``, true for observed entries; ``None`` if all are observed.
        ranks: processes that share the rows.
    """
    r, m = estimate.rank, len(estimate.right)
    right = estimate.right * estimate.values.to(estimate.right)
    before = right[columns, :r]
    seen = None if mask is None else mask.mT
    (after,) = ranks.broadcast(refitted(observed.mT, seen, before, estimate.left[:, :r], ranks))
    if torch.equal(before, after):
        return estimate, False
    right[columns, :r] = after
    right[columns, r:] = 0
    ones = torch.ones_like(estimate.values)
    found = orthonormal(right[ranks.own(m)], ones, estimate.left, r, ranks)
    return LowRank(found.right, found.values, found.left, r).gather_right(m, ranks), True
