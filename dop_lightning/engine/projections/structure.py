r"""Is there structure in what is left? The next components of the residual are tried on entries they have not seen.

Shapes: n rows, m columns, k singular triplets.
"""

import torch
from torch import Tensor

from dop_lightning.engine.projections.low_rank import LowRank, stepped
from dop_lightning.engine.projections.ranks import ALONE, Alone
from dop_lightning.engine.projections.sweep import Observation, sweep

COMPONENTS = 32
"""Components of the residual, at most."""

ROUNDS = 3
"""Passes that look for them."""


def next_components(
    observation: Observation,
    estimate: LowRank,
    threshold: float,
    longer: float,
    generator: torch.Generator,
    ranks: Alone = ALONE,
) -> LowRank:
    """Return the estimate with the leading components of its residual as candidates, by subspace iteration.

    Args:
        observation: D; hidden entries take no part.
        estimate: L.
        threshold: of outliers.
        longer: factor for the entries that are missing, hidden or outliers.
        generator: of the random start, on the CPU.
        ranks: among which rows are spread.
    """
    r = estimate.rank
    n, m = ranks.total(len(observation.values)), observation.values.shape[1]
    count = min(COMPONENTS, n - r, m - r)
    sides = []
    for vectors, side in ((estimate.left, n), (estimate.right[ranks.own(m)], m)):
        draws = ranks.normal(generator, side, count).to(vectors)
        sides.append(ranks.qr(torch.cat([vectors[:, :r], draws], dim=1))[0][:, r:])
    sides[1] = ranks.whole(sides[1], m)
    left, right = (
        torch.cat([own[:, :r], new], dim=1) for own, new in zip((estimate.left, estimate.right), sides, strict=True)
    )
    values = torch.cat([estimate.values[:r], torch.zeros(count, dtype=torch.float64, device=left.device)])
    wide = LowRank(left, values, right, r)
    for _ in range(ROUNDS):
        found = sweep(observation, wide, threshold, ranks=ranks)
        moved = stepped(wide, found.forward * longer, found.backward * longer, ranks)
        wide = moved.cut(r, r + count).completed(m, ranks)
    return wide


def prediction(
    wide: LowRank, rows: Tensor, columns: Tensor, residuals: Tensor, threshold: float, ranks: Alone = ALONE
) -> float:
    r"""Return how well candidates predict the residuals of hidden entries, as a t-statistic.

    With c the entries of the candidates and e the residuals that are no outliers, it is ``√h·⟨c, e⟩/(‖c‖‖e‖)``:
    standard normal if the residual is noise, since the candidates have not seen it, and of the order of √h if it has
    structure.

    Args:
        wide: an estimate with candidates.
        rows: of the hidden entries, ``(h,)``.
        columns: of the hidden entries, ``(h,)``.
        residuals: ``D − L`` there.
        threshold: of outliers.
        ranks: among which rows are spread.
    """
    r = wide.rank
    left = wide.left[:, r:] * wide.values[r:].to(wide.left)
    candidates = ranks.collect(rows, columns, lambda i, j: (left[i] * wide.right[j, r:]).sum(dim=1))
    inliers = residuals.abs() <= threshold
    c, e = candidates[inliers].double(), residuals[inliers].double()
    size = float(torch.linalg.vector_norm(c) * torch.linalg.vector_norm(e))
    return float(c @ e) / size * int(inliers.sum()) ** 0.5 if size > 0 else 0.0
