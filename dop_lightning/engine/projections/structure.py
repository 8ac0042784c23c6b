r"""Test the residual for structure: do its next components predict entries that they were not estimated from?

Shapes: n rows, m columns, k singular triplets.
"""

import torch
from torch import Tensor

from dop_lightning.engine.projections.low_rank import LowRank, stepped
from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, SingleProcess
from dop_lightning.engine.projections.sweep import Observation, sweep

COMPONENTS = 32
"""Maximum number of components of the residual."""

ROUNDS = 3
"""Passes of subspace iteration for the components."""


def next_components(
    observation: Observation,
    estimate: LowRank,
    threshold: float,
    longer: float,
    generator: torch.Generator,
    ranks: SingleProcess = SINGLE_PROCESS,
) -> LowRank:
    """Return the estimate with the leading components of its residual as candidates, by subspace iteration.

    Args:
        observation: D; hidden entries are ignored.
        estimate: L.
        threshold: threshold of outliers.
        longer: step factor that compensates for entries that are missing, hidden or outliers.
        generator: CPU generator of the random start.
        ranks: processes that share the rows.
    """
    r = estimate.rank
    n, m = ranks.total(len(observation.values)), observation.values.shape[1]
    count = min(COMPONENTS, n - r, m - r)
    sides = []
    for vectors, side in ((estimate.left, n), (estimate.right[ranks.own(m)], m)):
        draws = ranks.normal(generator, side, count).to(vectors)
        sides.append(ranks.qr(torch.cat([vectors[:, :r], draws], dim=1))[0][:, r:])
    sides[1] = ranks.gather_rows(sides[1], m)
    left, right = (
        torch.cat([own[:, :r], new], dim=1) for own, new in zip((estimate.left, estimate.right), sides, strict=True)
    )
    values = torch.cat([estimate.values[:r], torch.zeros(count, dtype=torch.float64, device=left.device)])
    wide = LowRank(left, values, right, r)
    for _ in range(ROUNDS):
        found = sweep(observation, wide, threshold, ranks=ranks)
        moved = stepped(wide, found.forward * longer, found.backward * longer, ranks)
        wide = moved.truncate(r, r + count).gather_right(m, ranks)
    return wide


def prediction(
    wide: LowRank,
    rows: Tensor,
    columns: Tensor,
    residuals: Tensor,
    threshold: float,
    ranks: SingleProcess = SINGLE_PROCESS,
) -> float:
    r"""Return how well candidates predict the residuals of hidden entries, as a t-statistic.

    Let c be the entries of the candidates and e the residuals that are not outliers. The statistic
    ``√h·⟨c, e⟩/(‖c‖‖e‖)`` is standard normal if the residual is noise, since the candidates were not estimated from
    hidden entries, and of order √h if the residual has structure.

    Args:
        wide: estimate with candidates.
        rows: row indices of the hidden entries, ``(h,)``.
        columns: column indices of the hidden entries, ``(h,)``.
        residuals: ``D − L`` at the hidden entries.
        threshold: threshold of outliers.
        ranks: processes that share the rows.
    """
    r = wide.rank
    left = wide.left[:, r:] * wide.values[r:].to(wide.left)
    candidates = ranks.collect(rows, columns, lambda i, j: (left[i] * wide.right[j, r:]).sum(dim=1))
    inliers = residuals.abs() <= threshold
    c, e = candidates[inliers].double(), residuals[inliers].double()
    size = float(torch.linalg.vector_norm(c) * torch.linalg.vector_norm(e))
    return float(c @ e) / size * int(inliers.sum()) ** 0.5 if size > 0 else 0.0
