r"""Probabilistic PCA of a low-rank matrix with many outliers, fitted to the result of a separation.

Shapes: n rows, m columns, q components of the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dop_lightning.matrices.cell_model import Cells, predict_cells
from dop_lightning.matrices.clipped_codes import clipped_codes
from dop_lightning.matrices.principal import principal_components
from dop_lightning.matrices.residual_tails import Tails
from dop_lightning.matrices.row_regression import AT_ONCE, RowRegression

LIMIT = 4.0
"""Standardized residual above which an entry is an outlier."""

QUANTILE, CONSISTENT = 0.4, 0.524
"""Quantile of |residual| that determines the noise, and its value for Gaussian noise: up to 60 % may be outliers."""

MIN_NOISE = 1e-6
"""Minimum standard deviation of the noise, in units of the median absolute entry."""

ITERATIONS = 8

ROUNDS = 4
"""Maximum number of times that the cells of a row are classified."""

SINGLE = 1e-3
"""Minimum standard deviation of the noise, in units of the median absolute entry, for which float32 is sufficient."""


@dataclass(frozen=True)
class LowRankModel:
    """Fitted model.

    Attributes:
        mean: μ, ``(m,)``.
        loadings: W, ``(m, q)``, orthogonal columns.
        noise: ψ, above 0.
        covariance: ``None``; it is not formed.
    """

    mean: NDArray[Any]
    loadings: NDArray[Any]
    noise: float
    covariance: None = None

    @property
    def is_single(self) -> bool:
        """Whether float32 is precise enough, given the noise."""
        return self.noise**0.5 >= SINGLE

    @property
    def tails(self) -> Tails:
        """Threshold of t, with Gaussian tails."""
        m = len(self.mean)
        return Tails(np.full((2, m), LIMIT), np.full((2, m), 0.75))

    def residuals(self, cells: Cells) -> NDArray[Any]:
        """Return t, ``(n, m)``."""
        return cells.t

    def clean(
        self, Z: NDArray[Any], device: str = "cpu", low_rank: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the mask of clean, observed cells, and the table with all other cells predicted, ``(n, m)`` each.

        Rows are classified by robust regression, independently of each other.

        Args:
            Z: ``(n, m)``, NaN if missing.
            device: device of the robust regression.
            low_rank: factors ``(n, q)`` and ``(q, m)`` of an L close to the clean Z, instead of the robust regression.
        """
        kept, values = np.empty(Z.shape, dtype=bool), np.empty(Z.shape, Z.dtype)
        for part, cells in self._strips(Z, device, low_rank):
            kept[part] = cells.kept
            np.copyto(cells.fitted, cells.rows, where=cells.kept)
            np.add(cells.fitted, self.mean, out=values[part], casting="same_kind")
        return kept, values

    def cells(self, Z: NDArray[Any], device: str = "cpu") -> Cells:
        """Return the predictions of all cells, with outliers excluded as in :meth:`clean`.

        Args:
            Z: ``(n, m)``, NaN if missing.
            device: device of the robust regression.
        """
        parts = [cells for _, cells in self._strips(Z, device)]
        rows, kept, fitted, factors = (
            np.concatenate([getattr(cells, name) for cells in parts]) for name in ("rows", "kept", "fitted", "factors")
        )
        return Cells(rows, kept, fitted, factors, parts[0].regression)

    def _strips(
        self, Z: NDArray[Any], device: str, low_rank: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> Iterator[tuple[slice, Cells]]:
        dtype = np.float32 if self.is_single else np.float64
        regression = RowRegression(self.loadings, self.noise, torch.float32 if self.is_single else torch.float64)
        factors: list[NDArray[Any]] = [factor.astype(dtype, copy=False) for factor in low_rank or ()]
        mean = self.mean.astype(dtype)
        for begin in range(0, len(Z), regression.height):
            part = slice(begin, begin + regression.height)
            observed = ~np.isnan(Z[part])
            rows = (Z[part] - self.mean).astype(dtype, copy=False)
            fitted = factors[0][part] @ factors[1] - mean if factors else None
            if not observed.all():
                rows[~observed] = 0.0
            yield part, self._classify_rows(rows, observed, regression, device, fitted)

    def _classify_rows(
        self,
        rows: NDArray[Any],
        observed: NDArray[Any],
        regression: RowRegression,
        device: str,
        fitted: NDArray[Any] | None,
    ) -> Cells:
        """Return the cells of some rows, starting from a prediction of them or from robust regression."""
        if fitted is None:
            fitted = clipped_codes(rows, observed, regression, device) @ regression.V.numpy().T
        residual = np.subtract(rows, fitted, out=fitted)
        kept = observed & (np.abs(residual, out=residual) <= LIMIT * self.noise**0.5)
        whole = part = predict_cells(rows, kept, regression)
        changed = np.arange(len(rows))
        for _ in range(ROUNDS):  # until the classification of each row is consistent, whatever its start
            before = part.kept
            after = observed[changed] & part.within(LIMIT)
            differs = np.nonzero((after != before).any(axis=1))[0]
            if not len(differs):
                break
            changed = changed[differs]
            part = predict_cells(rows[changed], after[differs], regression)
            whole.fitted[changed], whole.factors[changed], kept[changed] = part.fitted, part.factors, part.kept
        return Cells(rows, kept, whole.fitted, whole.factors, regression)


def fit_low_rank_model(Z: NDArray[Any], low_rank: NDArray[Any], q: int, center: bool, tolerance: float) -> LowRankModel:
    """Fit the model to a separation by expectation-maximization; each iteration classifies the entries again.

    Args:
        Z: ``(n, m)``, columns in comparable units, NaN if missing.
        low_rank: L of the separation, ``(n, m)``.
        q: rank of L, at least 0.
        center: whether to estimate μ by the column means; otherwise μ is 0.
        tolerance: components below this fraction of the largest are dropped.
    """
    m = Z.shape[1]
    observed = ~np.isnan(Z)
    given = np.where(observed, Z, 0.0)
    noise = _noise_variance(given - low_rank, observed)
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
        cells = predict_cells(rows, kept, RowRegression(loadings, noise))
        noise = _noise_variance(rows - cells.fitted, observed)
        before, kept = kept, observed & cells.within(LIMIT)
        values = np.where(kept, rows, cells.fitted) + mean
        if np.array_equal(before, kept):
            break
    return LowRankModel(mean, loadings, noise)


def certified_model(left: NDArray[Any], right: NDArray[Any], noise: float, center: bool) -> LowRankModel:
    """Return the model of a certified separation, from the covariance of the rows of L and the noise.

    Args:
        left: ``(n, q)``, with L = left·right; rows with observed entries only.
        right: ``(q, m)``, orthonormal rows.
        noise: standard deviation of the residual without outliers, at least 0.
        center: whether μ is the mean of the rows of L; otherwise μ is 0.
    """
    codes = left.mean(axis=0) if center else np.zeros(left.shape[1])
    variances, vectors = np.linalg.eigh((left - codes).T @ (left - codes) / len(left))
    variance = max(noise, MIN_NOISE) ** 2
    n, m = len(left), right.shape[1]
    # Subtracting the mean may reduce the rank of L by one.
    strong = np.nonzero(variances * n > variance * (n**0.5 + m**0.5) ** 2)[0][::-1]
    loadings = right.T @ vectors[:, strong] * np.sqrt(variances[strong])
    return LowRankModel(codes @ right, loadings, variance)


def without_outliers(
    Z: NDArray[Any], left: NDArray[Any], right: NDArray[Any], limit: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the mask ``|Z − left·right| ≤ limit``, ``(n, m)``, and left after a step towards the masked Z, ``(n, q)``.

    Args:
        Z: ``(n, m)``.
        left: ``(n, q)``.
        right: ``(q, m)``, orthonormal rows.
        limit: at least 0.
    """
    kept, moved = np.empty(Z.shape, dtype=bool), np.empty_like(left)
    for begin in range(0, len(Z), height := max(1, AT_ONCE // Z.shape[1])):
        part = slice(begin, begin + height)
        residual = left[part] @ right
        np.subtract(Z[part], residual, out=residual)
        np.less_equal(np.abs(residual), limit, out=kept[part])
        residual *= kept[part]
        moved[part] = left[part] + residual @ right.T
    return kept, moved


def _noise_variance(residual: NDArray[Any], observed: NDArray[Any]) -> float:
    return max(float(np.quantile(np.abs(residual[observed]), QUANTILE)) / CONSISTENT, MIN_NOISE) ** 2
