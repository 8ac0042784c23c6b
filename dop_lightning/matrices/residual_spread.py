r"""Variance function of each column, for residuals that increase with the predicted value.

Residuals of incomes, investments or counts are larger in rows with large values. A single threshold per column would
flag clean entries of these rows. Residuals are therefore divided by a spread that is linear in the prediction [Carroll
and Ruppert, Transformation and Weighting in Regression, 1988].

Shapes: n rows, m columns.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

GROUPS = 5
"""Maximum number of groups of rows, by their prediction, in which the spread is measured."""

ROWS_PER_GROUP = 8
"""Minimum number of rows per group; with fewer than three such groups, the spread is constant."""

MIN_SPREAD = 0.5
"""Minimum spread."""

MEDIAN_ERROR = 1.166
"""√n times the standard error of the median of n values |t|, relative to that median, for Gaussian t."""


class Spread(NamedTuple):
    """Spread of each column, ``σ(p) = max(1 + b·(p − c), ½)``.

    Attributes:
        center: c, ``(m,)``, median prediction.
        slope: b, ``(m,)``; 0 if the spread is constant.
    """

    center: NDArray[Any]
    slope: NDArray[Any]

    def at(self, predicted: NDArray[Any]) -> NDArray[Any]:
        """Return σ, ``(n, m)``, for predictions ``(n, m)``."""
        return np.maximum(1 + self.slope * (predicted - self.center), MIN_SPREAD)


def fit_spread(t: NDArray[Any], predicted: NDArray[Any], observed: NDArray[Any]) -> Spread:
    r"""Estimate the spread of each column.

    The rows are sorted by their prediction and split into five groups. ``b`` is the slope of the least-squares line
    through the medians of |t| and of p in the groups, in units of its value at c. It is shrunk by
    ``max(0, 1 − (e/b)²)`` [James and Stein, 1961], where e is its standard error for Gaussian t with constant spread.

    Args:
        t: residuals, ``(n, m)``.
        predicted: predictions p, ``(n, m)``.
        observed: ``(n, m)``, true if t is known.
    """
    size = np.abs(t)
    center, slope = np.zeros(t.shape[1]), np.zeros(t.shape[1])
    order = np.argsort(np.where(observed, predicted, np.inf), axis=0, kind="stable")
    counts = observed.sum(axis=0)
    for count in np.unique(counts):
        groups = min(GROUPS, int(count) // ROWS_PER_GROUP)
        if groups < 3:
            continue
        columns = np.nonzero(counts == count)[0]
        parts = np.array_split(order[:count, columns], groups)
        x = np.array([np.median(predicted[part, columns], axis=0) for part in parts])
        y = np.array([np.median(size[part, columns], axis=0) for part in parts])
        everything = order[:count, columns]
        middle = np.median(size[everything, columns], axis=0)
        center[columns] = np.median(predicted[everything, columns], axis=0)
        mean = x.mean(axis=0)
        x -= mean
        squares = (x * x).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            b = (x * y).sum(axis=0) / squares
            b /= np.maximum(y.mean(axis=0) + b * (center[columns] - mean), MIN_SPREAD * middle)
            error = MEDIAN_ERROR * (groups / count) ** 0.5 / np.sqrt(squares)
            shrunk = b * np.maximum(0.0, 1 - (error / b) ** 2)
        slope[columns] = np.where(np.isfinite(shrunk), shrunk, 0.0)
    return Spread(center, slope)
