r"""Robust location and scale of the columns of a table.

Shapes: n rows, m columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dop_lightning.foundation.quiet import quiet

MAD_TO_STANDARD_DEVIATION = 1.4826
"""Ratio of the standard deviation to the median absolute deviation (MAD) of a Gaussian distribution."""


def robust_location(X: NDArray[Any]) -> NDArray[Any]:
    """Return the median of each column, ``(m,)``; 0 for columns without observed entries.

    Args:
        X: ``(n, m)``, NaN if missing.
    """
    return np.nan_to_num(_median(X), nan=0.0).astype(X.dtype)


def robust_scale(deviations: NDArray[Any]) -> NDArray[Any]:
    r"""Return the scale of each column, ``(m,)``, positive.

    The scale is ``1.4826·median |d|``, the median absolute deviation [Hampel, 1974]. It estimates the standard
    deviation of Gaussian columns and is not affected by outliers in up to half of the rows. If more than half of the
    entries are equal, it is 0. The scale is then ``√f·median |d|`` over the entries with d ≠ 0, where f is their
    fraction. This is the root mean square of a column whose nonzero entries have equal magnitude. Constant columns have
    scale 1.

    Args:
        deviations: d, ``(n, m)``: columns minus their location; NaN if missing.
    """
    size = np.abs(deviations)
    scale = MAD_TO_STANDARD_DEVIATION * _median(size)
    sparse = ~(scale > 0)
    if sparse.any():
        some = size[:, sparse]
        observed, nonzero = ~np.isnan(some), some > 0
        fraction = nonzero.sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
        scale[sparse] = np.sqrt(fraction) * _median(np.where(nonzero, some, np.nan))
    scale = np.maximum(scale, 0.01 * _quantile(size, 0.75))
    return np.where(scale > 0, scale, 1.0).astype(deviations.dtype)


def _median(X: NDArray[Any]) -> NDArray[Any]:
    return _quantile(X, 0.5)


def _quantile(X: NDArray[Any], probability: float) -> NDArray[Any]:
    if not np.isnan(X).any():
        return _interpolated(np.array(X.T, order="C"), probability)  # contiguous columns are faster to partition
    with quiet(RuntimeWarning):  # for columns without observed entries
        return np.nanmedian(X, axis=0) if probability == 0.5 else np.nanquantile(X, probability, axis=0)


def _interpolated(columns: NDArray[Any], probability: float) -> NDArray[Any]:
    """Return the quantile of each row by linear interpolation, like NumPy. Reorders the rows in place."""
    position = probability * (columns.shape[1] - 1)
    low = int(position)
    columns.partition(low, axis=1)
    below = columns[:, low]
    if position == low:
        return below.copy()
    above = columns[:, low + 1 :].min(axis=1)
    if probability == 0.5:
        return (below + above) / 2
    return below + (above - below) * (position - low)
