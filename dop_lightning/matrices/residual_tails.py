r"""Thresholds for residuals with unknown tails, per column and sign.

Columns of tables have heavy and skewed tails. Thresholds at a multiple of a single scale then flag many clean entries,
which biases estimates from the others. Instead, the tail of each side is extrapolated from its center by a Weibull
distribution.

Shapes: n rows, m columns.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dop_lightning.matrices.column_scale import MAD_TO_STANDARD_DEVIATION

TAIL_FRACTION = 0.003
"""Fraction of clean residuals beyond the threshold; for Gaussian residuals, this is at 3 standard deviations."""

CENTER, SHOULDER = 0.5, 0.8
"""Quantiles of |t| to which the distribution is fitted; a few per cent of outliers hardly change them."""

POOLING_COUNT = 100
"""Number of residuals at which the exponent of a column has the same weight as the pooled one."""

MAX_EXPONENT = 1.5
"""Maximum exponent; 1 is an exponential tail, 0.75 resembles a Gaussian tail."""

MIN_SIGN_FRACTION = 0.1
"""Fraction of a column below which the residuals of one sign may all be outliers, such as negative entries of counts.
Their threshold is at most that of the other sign."""

MIN_THRESHOLD = 3.0
"""Minimum threshold in robust standard deviations of t."""


class Tails(NamedTuple):
    """Tails of residuals.

    Attributes:
        threshold: ``(2, m)``, positive: thresholds of positive and of negative residuals.
        exponent: ``(2, m)``: 1/shape of the Weibull distribution.
    """

    threshold: NDArray[Any]
    exponent: NDArray[Any]

    def ratio(self, t: NDArray[Any]) -> NDArray[Any]:
        """Return |t| relative to the threshold of its sign, ``(n, m)``; residuals above 1 are outliers."""
        return np.abs(t) / np.where(t > 0, self.threshold[0], self.threshold[1])

    def outlier_probability(self, t: NDArray[Any], prior: float) -> NDArray[Any]:
        r"""Return the probability that each residual is an outlier, ``(n, m)``.

        ``π f₁(u) / (π f₁(u) + (1 − π) f₀(u))`` with ``u = |t|/threshold``, f₀ the Weibull density, and f₁ a half-Cauchy
        density with scale 1.

        Args:
            t: residuals, ``(n, m)``.
            prior: π, the fraction of outliers, above 0 and below 1.
        """
        u = np.maximum(self.ratio(t), 1e-9)
        shape = 1 / np.where(t > 0, self.exponent[0], self.exponent[1])
        rate = -np.log(TAIL_FRACTION)
        log_clean = np.log(rate * shape) + (shape - 1) * np.log(u) - rate * np.exp(np.minimum(shape * np.log(u), 600))
        log_clean = np.minimum(log_clean, np.log(rate * shape))
        log_outlier = np.log(2 / np.pi) - np.log1p(u * u)
        odds = np.log(prior) - np.log1p(-prior) + log_outlier - log_clean
        return 1 / (1 + np.exp(-np.clip(odds, -700, 700)))


def fit_tails(t: NDArray[Any], observed: NDArray[Any]) -> Tails:
    r"""Estimate the threshold of each column and sign.

    For the residuals of one sign, ``P(|t| > x) = exp(−(x/λ)^{1/p})``. λ and p are estimated from two quantiles of |t|;
    p is shrunk to that of all columns with the weight of 100 residuals. The threshold is exceeded with probability
    0.003.

    Args:
        t: residuals, ``(n, m)``.
        observed: ``(n, m)``, true if t is known.
    """
    reach = np.log(TAIL_FRACTION) / np.log(1 - CENTER)
    slope = np.log(np.log(1 - SHOULDER) / np.log(1 - CENTER))
    size = np.where(observed, np.abs(t), np.nan)
    tiny = 1e-9 * np.nanmax(size, initial=0.0)
    counts, centers, shoulders, relative = [], [], [], []
    for side in (t, -t):
        u = np.sort(np.where(observed & (side > tiny), side, np.inf), axis=0)
        count = np.isfinite(u).sum(axis=0)
        last = np.maximum(count - 1, 0)
        center, shoulder = _quantile(u, last, CENTER), _quantile(u, last, SHOULDER)
        counts.append(count)
        centers.append(center)
        shoulders.append(shoulder)
        known = np.isfinite(center) & (count >= 3)
        ratios = u[:, known] / center[known]
        relative.append(ratios[np.isfinite(ratios)])
    pool = np.concatenate(relative)
    pooled = np.log(max(float(np.quantile(pool, SHOULDER)), 1.0)) / slope if pool.size else 1.0
    count, center, shoulder = np.array(counts), np.array(centers), np.array(shoulders)
    enough = count >= 3
    with np.errstate(invalid="ignore"):
        own = np.log(np.where(enough, shoulder / center, 1.0)) / slope
    exponent = np.where(enough, (count * own + POOLING_COUNT * pooled) / (count + POOLING_COUNT), pooled)
    exponent = np.clip(exponent, 0.1, MAX_EXPONENT)
    least = MIN_THRESHOLD * np.maximum(MAD_TO_STANDARD_DEVIATION * np.nan_to_num(_column_median(size)), 0.5)
    threshold = np.maximum(np.where(enough, center, 0.0) * reach**exponent, least)
    rare = (count < MIN_SIGN_FRACTION * observed.sum(axis=0)) & (count < count[::-1])
    return Tails(np.where(rare, np.minimum(threshold, threshold[::-1]), threshold), exponent)


def _quantile(u: NDArray[Any], last: NDArray[Any], probability: float) -> NDArray[Any]:
    """Return a quantile of the first ``last + 1`` sorted entries of each column, interpolated linearly like NumPy."""
    position = probability * last
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, last)
    columns = np.arange(u.shape[1])
    below, above = u[low, columns], u[high, columns]
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(above), below + (position - low) * (above - below), below)


def _column_median(size: NDArray[Any]) -> NDArray[Any]:
    u = np.sort(size, axis=0)  # NaN last
    count = (~np.isnan(u)).sum(axis=0)
    return _quantile(u, np.maximum(count - 1, 0), 0.5)
