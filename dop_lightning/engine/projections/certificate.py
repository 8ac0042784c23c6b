r"""Certify a low-rank and sparse model by entries that were held out of the recovery, without the truth.

Shapes: n rows, m columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

MAX_EXACT_RESIDUAL = 10.0
"""Residual of hidden entries up to which the model is exact, as a multiple of the tolerance."""

MAX_RESIDUAL_RATIO = 1.1
"""In dense noise, the residual of hidden entries may exceed that of the others by this factor, in addition to the
effect of the degrees of freedom."""

MAX_FREEDOM = 0.25
"""Maximum degrees of freedom of L per entry that is not an outlier."""

MAX_OUTLIERS = 0.6
"""Maximum fraction of outliers: S must be sparse."""

MAX_T_STATISTIC = 5.0
"""Maximum t-statistic with which the next components may predict hidden entries, in standard deviations."""

MAX_RELATIVE_RESIDUAL = 0.5
"""Maximum residual of hidden entries relative to their magnitude."""


@dataclass(frozen=True)
class Certificate:
    """Verdict on a recovery.

    Attributes:
        kind: ``exact``: L is of low rank up to rounding; ``noisy``: up to white noise; ``rejected``: neither.
        reason: why the model was rejected; empty if accepted.
        hidden: median residual of hidden entries that are not outliers, relative to the root mean square of L.
        shown: the same for entries that were not hidden.
    """

    kind: Literal["exact", "noisy", "rejected"]
    reason: str = ""
    hidden: float = float("nan")
    shown: float = float("nan")

    @property
    def is_accepted(self) -> bool:
        """Whether the model is accepted."""
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
    r"""Compare the residuals of hidden entries with those of the others.

    If L fits the entries it was estimated from but not the hidden ones, it is not a model of the matrix. Hidden entries
    are corrupted at the same rate, so their fraction of outliers must be the same. Their other residuals must be of the
    same size: up to the tolerance if the model is exact, up to the degrees of freedom of L if there is dense noise.
    Finally, the next components of the residual must not predict hidden entries, or else they belong to L.

    Args:
        hidden: ``|D − L|`` of entries that were held out of the recovery, ``(h,)``.
        shown: the same for other entries, ``(q,)``.
        size: ``|D|`` of the hidden entries.
        rms: root mean square of L.
        tolerance: tolerance of an exact recovery, relative to ``rms``.
        freedom: ``r(n + m − r)`` divided by the number of entries that are not outliers.
        structure: returns how well the next components predict hidden entries
            (:func:`~dop_lightning.engine.projections.structure.prediction`); only called if all other checks pass.
    """
    if not rms > 0:
        return rejected("no low-rank component was found")
    floor = MAX_EXACT_RESIDUAL * tolerance * rms
    exact = _fraction_above(hidden, floor), _fraction_above(shown, floor)
    both = len(hidden), len(shown)
    hidden_level, shown_level = _median_residual(hidden, exact[1]) / rms, _median_residual(shown, exact[1]) / rms
    if (
        exact[1] <= MAX_OUTLIERS
        and freedom <= MAX_FREEDOM
        and hidden_level <= MAX_EXACT_RESIDUAL * tolerance
        and _fractions_agree(*exact, *both)
    ):
        return Certificate("exact", "", hidden_level, shown_level)
    scale = _noise_deviation(shown)
    beyond = _fraction_above(hidden, 5 * scale), _fraction_above(shown, 5 * scale)
    hidden_level, shown_level = _median_residual(hidden, beyond[1]) / rms, _median_residual(shown, beyond[1]) / rms
    found = {"hidden": hidden_level, "shown": shown_level}
    if beyond[1] > MAX_OUTLIERS:
        return rejected(f"most entries would be outliers ({beyond[1]:.2f})", **found)
    if freedom > MAX_FREEDOM:
        return rejected(f"the rank is too high for the size of the matrix ({freedom:.2f} degrees of freedom per entry)")
    if not hidden_level <= MAX_RELATIVE_RESIDUAL * float(size.median()) / rms:
        return rejected("hidden entries are not predicted", **found)
    if not hidden_level <= (MAX_RESIDUAL_RATIO + 2 * freedom) * shown_level:
        return rejected("the error at hidden entries exceeds the error at the others", **found)
    if not _fractions_agree(*beyond, *both):
        return rejected("outliers are more frequent among hidden entries than among the others", **found)
    if not structure() <= MAX_T_STATISTIC:
        return rejected("the residual has structure beyond the estimated rank", **found)
    return Certificate("noisy", "", hidden_level, shown_level)


def _fraction_above(residuals: Tensor, limit: float) -> float:
    return float((residuals > limit).double().mean())


def _median_residual(residuals: Tensor, outliers: float) -> float:
    """Return the median residual of the entries that are not outliers, given the fraction of outliers."""
    return float(residuals.quantile(0.5 * (1 - min(outliers, 0.98))))


def _noise_deviation(residuals: Tensor) -> float:
    """Return the standard deviation of normal noise, robust to outliers in up to half of the entries."""
    scale = float(residuals.median()) / 0.6745
    for _ in range(5):
        inliers = 1 - _fraction_above(residuals, 5 * scale)
        scale = float(residuals.quantile(0.5 * inliers)) / 0.6745
    return scale


def _fractions_agree(first: float, second: float, sizes_first: int, sizes_second: int) -> bool:
    """Return whether two fractions agree up to chance and half a per cent."""
    spread = (second * (1 - second) * (1 / sizes_first + 1 / sizes_second)) ** 0.5
    return abs(first - second) <= 5 * spread + 0.005
