r"""Principal components of a covariance matrix, or of rows with too many columns to form one.

Shapes: n rows, m columns, r components.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ITERATIONS_COLD, ITERATIONS_WARM = 8, 2

OVERSAMPLED = 8


def principal_components(
    covariance: NDArray[Any] | None,
    rows: NDArray[Any] | None,
    r: int,
    start: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Return the leading principal components.

    With a covariance matrix, the result is exact, by eigendecomposition. Otherwise, it is computed by subspace
    iteration [Halko, Martinsson and Tropp, 2011].

    Args:
        covariance: ``(m, m)``, or ``None``.
        rows: centered rows, ``(n, m)``; used if there is no covariance.
        r: number of components.
        start: ``(m, r)``, approximate basis to start the iteration from, or ``None``.

    Returns:
        Components ``(r, m)``, orthonormal; their variances ``(r,)``, descending; the total variance.

    Raises:
        ValueError: neither a covariance nor rows are given.
    """
    if covariance is not None:
        values, vectors = np.linalg.eigh(covariance)
        return vectors[:, ::-1][:, :r].T, np.maximum(values[::-1][:r], 0.0), float(np.trace(covariance))
    if rows is None:
        raise ValueError("principal_components requires a covariance or rows, got neither")
    n, m = rows.shape
    iterations = ITERATIONS_WARM
    if start is None:
        start = np.random.default_rng(0).standard_normal((m, min(m, r + OVERSAMPLED)))
        iterations = ITERATIONS_COLD
    basis = np.linalg.qr(start)[0].astype(rows.dtype)
    for _ in range(iterations):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
    codes = rows @ basis
    values, rotation = np.linalg.eigh(codes.T @ codes / n)
    components = (basis @ rotation[:, ::-1][:, :r]).T
    total = np.einsum("ij,ij->", rows, rows) if rows.dtype == np.float64 else np.linalg.norm(rows) ** 2
    return components, np.maximum(values[::-1][:r], 0.0), float(total) / n
