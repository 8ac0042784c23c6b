r"""Rows that are lost: nearly all of their entries are taken for outliers, so that L stays wrong there.

A row of unusual size, or with unusually many outliers, may be fitted so badly while the threshold falls that its clean
entries pass it too. They then are no longer looked at, and the row stays as it is. With the right singular vectors V
known from the other rows, its codes follow from least absolute deviations, which no threshold enters.

Shapes: n rows, m columns, r the rank.
"""

import torch
from torch import Tensor

from dop_lightning.engine.projections.low_rank import LowRank, orthonormal
from dop_lightning.engine.projections.ranks import ALONE, Alone
from dop_lightning.engine.robust_codes import robust_codes

SIGNIFICANT = 4.0
"""Standard deviations of a binomial number by which the outliers of a lost row exceed their mean."""

MOST = 0.2
"""Share of the rows up to which they are lost; beyond it the matrix is of another kind."""

BETTER = 0.9999
"""The new codes must lower the sum of absolute residuals by this factor."""


def lost_rows(outliers: Tensor, observed: Tensor, ranks: Alone = ALONE) -> Tensor:
    """Return the positions of rows with significantly more outliers than the typical one.

    Args:
        outliers: their number in each row, ``(n,)``.
        observed: number of observed entries of each row, ``(n,)``.
        ranks: among which rows are spread.
    """
    counts, size = outliers.double(), observed.double()
    share = ranks.median(counts / size.clamp_min(1))
    spread = (size * share * (1 - share)).clamp_min(1).sqrt()
    return torch.nonzero(counts > size * share + SIGNIFICANT * spread).flatten()


def refitted(rows: Tensor, mask: Tensor | None, codes: Tensor, right: Tensor, ranks: Alone = ALONE) -> Tensor:
    """Return the codes of rows, ``(q, r)``: new ones by least absolute deviations where these fit better.

    Args:
        rows: of the observation, ``(q, m)``.
        mask: ``(q, m)``, true where observed; ``None`` if all is.
        codes: the codes so far, ``(q, r)``.
        right: right singular vectors, ``(m, r)``.
        ranks: among which the entries of each row are spread.
    """
    found = robust_codes(rows, right.mT.contiguous(), mask, add=ranks.sum)

    def residual(of: Tensor) -> Tensor:
        r = (rows - of @ right.mT).abs()
        return ranks.sum((r if mask is None else r * mask).sum(dim=1))

    better = residual(found) < BETTER * residual(codes)
    return torch.where(better[:, None], found, codes)


def with_rows(
    estimate: LowRank, rows: Tensor, observed: Tensor, mask: Tensor | None, ranks: Alone = ALONE
) -> tuple[LowRank, bool]:
    """Return the estimate with some of its rows fitted to what was observed of them, and whether any has changed.

    Args:
        estimate: L.
        rows: their positions, ``(q,)``; of this rank.
        observed: these rows of D, ``(q, m)``.
        mask: ``(q, m)``, true where observed; ``None`` if all is.
        ranks: among which rows are spread.
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
    return orthonormal(left, ones, estimate.right[ranks.own(m)], r, ranks).completed(m, ranks), True


def with_columns(
    estimate: LowRank, columns: Tensor, observed: Tensor, mask: Tensor | None, ranks: Alone = ALONE
) -> tuple[LowRank, bool]:
    """Return the estimate with some of its columns fitted to what was observed of them, and whether any has changed.

    Args:
        estimate: L.
        columns: their positions, ``(q,)``.
        observed: these columns of D, ``(n, q)``; of the rows of this rank.
        mask: ``(n, q)``, true where observed; ``None`` if all is.
        ranks: among which rows are spread.
    """
    r, m = estimate.rank, len(estimate.right)
    right = estimate.right * estimate.values.to(estimate.right)
    before = right[columns, :r]
    seen = None if mask is None else mask.mT
    (after,) = ranks.same(refitted(observed.mT, seen, before, estimate.left[:, :r], ranks))
    if torch.equal(before, after):
        return estimate, False
    right[columns, :r] = after
    right[columns, r:] = 0
    ones = torch.ones_like(estimate.values)
    found = orthonormal(right[ranks.own(m)], ones, estimate.left, r, ranks)
    return LowRank(found.right, found.values, found.left, r).completed(m, ranks), True
