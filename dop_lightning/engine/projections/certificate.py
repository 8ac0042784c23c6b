r"""Does a low-rank and sparse model hold? Judged by entries that the recovery has not seen, without the truth.

Shapes: n rows, m columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

EXACT = 10.0
"""The residual of hidden entries may be so many times the tolerance for an exact model."""

OVERFIT = 1.1
"""In dense noise, hidden entries may have so many times the residual of the others, besides what the degrees of
freedom explain."""

FREEDOM = 0.25
"""Degrees of freedom of L per entry that is left, at most."""

MOST_OUTLIERS = 0.6
"""Share of outliers, at most: a sparse part is sparse."""

CHANCE = 5.0
"""Standard deviations by which the next components may predict hidden entries better than chance."""

PREDICTS = 0.5
"""Residual of hidden entries in units of their own size, at most."""


@dataclass(frozen=True)
class Certificate:
    """The verdict on a recovery.

    Attributes:
        kind: ``exact``: L is of low rank up to rounding; ``noisy``: up to white noise; ``rejected``: neither.
        reason: what speaks against it; empty if accepted.
        hidden: median residual of hidden entries that are no outliers, relative to the root mean square of L.
        shown: the same of the others.
    """

    kind: Literal["exact", "noisy", "rejected"]
    reason: str = ""
    hidden: float = float("nan")
    shown: float = float("nan")

    @property
    def is_accepted(self) -> bool:
        """Whether the model holds."""
        return self.kind != "rejected"


def rejected(reason: str, hidden: float = float("nan"), shown: float = float("nan")) -> Certificate:
    """Return a verdict against the model."""
    return Certificate("rejected", reason, hidden, shown)


def certify(
    hidden: Tensor,
    shown: Tensor,
    size: Tensor,
    rms: float,
    tolerance: float,
    freedom: float,
    structure: Callable[[], float],
) -> Certificate:
    r"""Compare the residuals of hidden entries with those of others.

    An L that fits what it has seen but not what was hidden is no model of the matrix. Hidden entries are as corrupted
    as the others, so that the share of outliers must be the same, and the rest must have the same size: up to the
    tolerance if the model is exact, up to the degrees of freedom that L takes if there is dense noise. Then the
    next components of the residual must not predict hidden entries, or they belong to L.

    Args:
        hidden: ``|D − L|`` of entries that were kept from the recovery, ``(h,)``.
        shown: the same of other entries, ``(q,)``.
        size: ``|D|`` of the hidden entries.
        rms: root mean square of L.
        tolerance: of an exact recovery, relative to ``rms``.
        freedom: ``r(n + m − r)`` over the number of entries that are no outliers.
        structure: returns how well the next components predict hidden entries
            (:func:`~dop_lightning.engine.projections.structure.prediction`); called if nothing else speaks against L.
    """
    if not rms > 0:
        return rejected("nothing of low rank was found")
    floor = EXACT * tolerance * rms
    exact = _share_above(hidden, floor), _share_above(shown, floor)
    both = len(hidden), len(shown)
    hidden_level, shown_level = _level(hidden, exact[1]) / rms, _level(shown, exact[1]) / rms
    if (
        exact[1] <= MOST_OUTLIERS
        and freedom <= FREEDOM
        and hidden_level <= EXACT * tolerance
        and _same_share(*exact, *both)
    ):
        return Certificate("exact", "", hidden_level, shown_level)
    scale = _noise(shown)
    beyond = _share_above(hidden, 5 * scale), _share_above(shown, 5 * scale)
    hidden_level, shown_level = _level(hidden, beyond[1]) / rms, _level(shown, beyond[1]) / rms
    found = {"hidden": hidden_level, "shown": shown_level}
    if beyond[1] > MOST_OUTLIERS:
        return rejected(f"most entries would be outliers ({beyond[1]:.2f})", **found)
    if freedom > FREEDOM:
        return rejected(f"the rank is high for the size of the matrix ({freedom:.2f} degrees of freedom per entry)")
    if not hidden_level <= PREDICTS * float(size.median()) / rms:
        return rejected("hidden entries are not predicted", **found)
    if not hidden_level <= (OVERFIT + 2 * freedom) * shown_level:
        return rejected("hidden entries are predicted worse than the others are fitted", **found)
    if not _same_share(*beyond, *both):
        return rejected("there are more outliers among hidden entries than among the others", **found)
    if not structure() <= CHANCE:
        return rejected("the residual has structure beyond the rank that was found", **found)
    return Certificate("noisy", "", hidden_level, shown_level)


def _share_above(residuals: Tensor, limit: float) -> float:
    return float((residuals > limit).double().mean())


def _level(residuals: Tensor, outliers: float) -> float:
    """The median of the share that are no outliers."""
    return float(residuals.quantile(0.5 * (1 - min(outliers, 0.98))))


def _noise(residuals: Tensor) -> float:
    """The standard deviation of normal noise that half of the entries, or more, have."""
    scale = float(residuals.median()) / 0.6745
    for _ in range(5):
        inliers = 1 - _share_above(residuals, 5 * scale)
        scale = float(residuals.quantile(0.5 * inliers)) / 0.6745
    return scale


def _same_share(first: float, second: float, sizes_first: int, sizes_second: int) -> bool:
    """Whether two shares differ by no more than chance, and half a per cent."""
    spread = (second * (1 - second) * (1 / sizes_first + 1 / sizes_second)) ** 0.5
    return abs(first - second) <= 5 * spread + 0.005
