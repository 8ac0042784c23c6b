r"""Probabilistic PCA of a matrix of low rank with many outliers, from a separation of the two.

Shapes: n rows, m columns, q components of the model.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dop_lightning.engine.robust_codes import robust_codes
from dop_lightning.matrices.cell_model import Cells, predict_cells
from dop_lightning.matrices.column_scale import robust_scale
from dop_lightning.matrices.principal import principal_components
from dop_lightning.matrices.residual_tails import Tails

LIMIT = 4.0
"""Standardized residual beyond which an entry is an outlier."""

QUANTILE, CONSISTENT = 0.4, 0.524
"""The quantile of |residual| that sets the noise, and its value for Gaussian noise: up to 60 % may be outliers."""

LEAST_NOISE = 1e-6
"""Lower bound on the standard deviation of the noise, in units of the median absolute entry."""

BOUND = 100.0
"""Entries are bounded by this many times the median absolute entry of their row before the first fit."""

ITERATIONS, SWEEPS, FIRST_ITERATIONS = 8, 2, 30


@dataclass(frozen=True)
class LowRankModel:
    """A fitted model.

    Attributes:
        mean: μ, ``(m,)``.
        loadings: W, ``(m, q)``, orthogonal columns.
        noise: ψ, above 0.
        covariance: ``None``: it is not formed.
    """

    mean: NDArray[Any]
    loadings: NDArray[Any]
    noise: float
    covariance: None = None

    @property
    def tails(self) -> Tails:
        """The threshold of t, with the tail of Gaussian residuals."""
        m = len(self.mean)
        return Tails(np.full((2, m), LIMIT), np.full((2, m), 0.75))

    def residuals(self, rows: NDArray[Any], cells: Cells) -> NDArray[Any]:
        """Return t, ``(n, m)``."""
        return cells.t

    def cells(self, Z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Cells]:
        """Judge each cell by least absolute deviations of its row; a row does not depend on the others.

        Args:
            Z: ``(n, m)``, NaN where missing.

        Returns:
            Which cells are observed and clean, ``(n, m)``; the table with the predictions of all others, ``(n, m)``;
            what the model says of each cell.
        """
        observed = ~np.isnan(Z)
        rows = np.where(observed, Z - self.mean, 0.0)
        # Bounded, since the precision of least absolute deviations is relative to the largest entries.
        bound = BOUND * robust_scale(np.where(rows != 0, rows, np.nan).T)[:, None]
        sizes = np.linalg.norm(self.loadings, axis=0)
        basis = np.ascontiguousarray((self.loadings / np.where(sizes > 0, sizes, 1.0)).T)
        codes = robust_codes(
            torch.from_numpy(np.clip(rows, -bound, bound)),
            torch.from_numpy(basis),
            torch.from_numpy(observed),
            iterations=FIRST_ITERATIONS,
        ).numpy()
        kept = observed & (np.abs(rows - codes @ basis) <= LIMIT * self.noise**0.5)
        for _ in range(SWEEPS):
            cells = predict_cells(rows, kept, self.loadings, self.noise)
            kept = observed & (np.abs(cells.t) <= LIMIT)
        cells = predict_cells(rows, kept, self.loadings, self.noise)
        return kept, np.where(kept, rows, cells.fitted) + self.mean, cells


def fit_low_rank_model(Z: NDArray[Any], low_rank: NDArray[Any], q: int, center: bool, tolerance: float) -> LowRankModel:
    """Fit the model by expectation-maximization from a separation, judging entries anew in each iteration.

    Args:
        Z: ``(n, m)``, columns in comparable units, NaN where missing.
        low_rank: L, ``(n, m)``, as separated.
        q: its rank, at least 0.
        center: whether μ is the mean of the columns; else it is 0.
        tolerance: components below this fraction of the largest are dropped.
    """
    m = Z.shape[1]
    observed = ~np.isnan(Z)
    given = np.where(observed, Z, 0.0)
    noise = _noise(given - low_rank, observed)
    kept = observed & (np.abs(given - low_rank) <= LIMIT * noise**0.5)
    values = low_rank
    mean, loadings = np.zeros(m), np.zeros((m, 0))
    start: NDArray[Any] | None = None
    for _ in range(ITERATIONS if q else 1):
        mean = values.mean(axis=0) if center else mean
        components, variances, _ = principal_components(None, values - mean, q, start)
        strong = variances > tolerance**2 * variances[:1].sum()
        q, start = int(strong.sum()), components[strong].T
        loadings = start * np.sqrt(np.maximum(variances[strong] - noise, 0.1 * noise))
        rows = np.where(observed, Z - mean, 0.0)
        cells = predict_cells(rows, kept, loadings, noise)
        noise = _noise(rows - cells.fitted, observed)
        before, kept = kept, observed & (np.abs(cells.residual) <= LIMIT * np.sqrt(cells.variance))
        values = np.where(kept, rows, cells.fitted) + mean
        if np.array_equal(before, kept):
            break
    return LowRankModel(mean, loadings, noise)


def certified_model(left: NDArray[Any], right: NDArray[Any], noise: float, center: bool) -> LowRankModel:
    """Return the model of a separation that is known to hold: the covariance of the rows of L, and its noise.

    Args:
        left: ``(n, q)``, with L = left·right; of rows that were observed.
        right: ``(q, m)``, orthonormal rows.
        noise: standard deviation of the residual without outliers, at least 0.
        center: whether μ is the mean of the columns of L; else it is 0.
    """
    codes = left.mean(axis=0) if center else np.zeros(left.shape[1])
    variances, vectors = np.linalg.eigh((left - codes).T @ (left - codes) / len(left))
    variance = max(noise, LEAST_NOISE) ** 2
    n, m = len(left), right.shape[1]
    # Without its mean, L may have one component less.
    strong = np.nonzero(variances * n > variance * (n**0.5 + m**0.5) ** 2)[0][::-1]
    loadings = right.T @ vectors[:, strong] * np.sqrt(variances[strong])
    return LowRankModel(codes @ right, loadings, variance)


def _noise(residual: NDArray[Any], observed: NDArray[Any]) -> float:
    return max(float(np.quantile(np.abs(residual[observed]), QUANTILE)) / CONSISTENT, LEAST_NOISE) ** 2
