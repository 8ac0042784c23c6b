r"""Rows that are lost: nearly all of their entries are taken for outliers, so that L stays wrong there.

A row of unusual size, or with unusually many outliers, may be fitted so badly while the threshold falls that its clean
entries pass it too. They then are no longer looked at, and the row stays as it is. With the right singular vectors V
known from the other rows, its codes follow from least absolute deviations, which no threshold enters.

Shapes: n rows, m columns, r the rank.
"""

import torch
from torch import Tensor

from dop_lightning.engine.robust_codes import robust_codes

SIGNIFICANT = 4.0
"""Standard deviations of a binomial number by which the outliers of a lost row exceed their mean."""

MOST = 0.2
"""Share of the rows up to which they are lost; beyond it the matrix is of another kind."""

BETTER = 0.9999
"""The new codes must lower the sum of absolute residuals by this factor."""


def lost_rows(outliers: Tensor, observed: Tensor) -> Tensor:
    """Return the positions of rows with significantly more outliers than the typical one.

    Args:
        outliers: their number in each row, ``(n,)``.
        observed: number of observed entries of each row, ``(n,)``.
    """
    counts, size = outliers.double(), observed.double()
    share = (counts / size.clamp_min(1)).median()
    spread = (size * share * (1 - share)).clamp_min(1).sqrt()
    return torch.nonzero(counts > size * share + SIGNIFICANT * spread).flatten()


def refitted(rows: Tensor, mask: Tensor | None, codes: Tensor, right: Tensor) -> Tensor:
    """Return the codes of rows, ``(q, r)``: new ones by least absolute deviations where these fit better.

    Args:
        rows: of the observation, ``(q, m)``.
        mask: ``(q, m)``, true where observed; ``None`` if all is.
        codes: the codes so far, ``(q, r)``.
        right: right singular vectors, ``(m, r)``.
    """
    found = robust_codes(rows, right.mT.contiguous(), mask)

    def residual(of: Tensor) -> Tensor:
        r = (rows - of @ right.mT).abs()
        return (r if mask is None else r * mask).sum(dim=1)

    better = residual(found) < BETTER * residual(codes)
    return torch.where(better[:, None], found, codes)
