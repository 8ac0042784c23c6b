r"""Probabilistic PCA of a table with outlying cells; each cell is compared with its prediction from its row.

The model of a row is ``z = μ + W c + ε`` with ``c ~ N(0, I)`` and ``ε ~ N(0, ψI)`` [Tipping and Bishop, 1999]. Outlying
cells are treated as missing, as in cellwise robust covariance estimation [Raymaekers and Rousseeuw, 2023]. The prior
shrinks surplus components, so their number need not be known.

Shapes: n rows, m columns, q components of the model.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dop_lightning.matrices.column_scale import robust_location
from dop_lightning.matrices.principal import principal_components
from dop_lightning.matrices.residual_spread import Spread, fit_spread
from dop_lightning.matrices.residual_tails import Tails, fit_tails
from dop_lightning.matrices.row_regression import RowRegression

COMPONENTS = 20
"""Maximum number of components for a table, unless a larger rank is known."""

ROWS_PER_COMPONENT = 5

DENSE_COLUMNS = 256
"""Maximum number of columns for which the covariance is formed."""

ITERATIONS, SWEEPS, LAST_SWEEPS = 10, 2, 10

AT_ONCE = 2**18
"""Entries of rows, or of their Gram matrices, that are processed at once."""


@dataclass(frozen=True)
class Cells:
    """Predictions of the cells of a table.

    Attributes:
        rows: z − μ, ``(n, m)``.
        kept: ``(n, m)``, true for the cells that were used.
        fitted: ``(n, m)``, prediction from all kept cells of the row.
        factors: ``(n, q, q)``, Cholesky factors of A in the regression.
        regression: regression of the rows.
    """

    rows: NDArray[Any]
    kept: NDArray[Any]
    fitted: NDArray[Any]
    factors: NDArray[Any]
    regression: RowRegression

    @property
    def gram(self) -> NDArray[Any]:
        """Covariance of the codes, ``(n, q, q)``."""
        sizes = self.regression.sizes
        return self._inverse * (self.regression.noise / (sizes[:, None] * sizes))

    @cached_property
    def residual(self) -> NDArray[Any]:
        """Cell minus its prediction from the other kept cells of its row, ``(n, m)``."""
        residual = self.rows - self.fitted
        return np.divide(residual, self._residual_leverage, out=residual, where=self.kept)

    @property
    def variance(self) -> NDArray[Any]:
        """Variance of :attr:`residual` under the model, ``(n, m)``."""
        noise = self.regression.noise
        return np.where(self.kept, noise / self._residual_leverage, noise * (1 + self._leverage))

    @property
    def t(self) -> NDArray[Any]:
        """Standardized residual, ``(n, m)``."""
        return self.residual / np.sqrt(self.variance)

    def within(self, limit: float) -> NDArray[Any]:
        """Return the mask of cells with ``|t| ≤ limit``, ``(n, m)``.

        Args:
            limit: above 0.
        """
        squares = self.rows - self.fitted
        squares *= squares
        squares /= limit**2 * self.regression.noise
        inverse = self._inverse
        # an upper bound on the leverage; if it is small, it leaves few cells undecided
        most = float(np.linalg.norm(inverse, axis=(1, 2)).max(initial=0.0)) * self.regression.longest**2
        result = squares <= 1 - most
        row, column = np.nonzero((squares <= 1 + most) & ~result)
        if len(row) * inverse.shape[1] > squares.size:
            bound = self.regression.leverage(inverse, np.float32)
            np.negative(bound, out=bound, where=self.kept)
            return squares <= bound + 1
        v = self.regression.V.numpy()[column]
        leverage = np.einsum("pi,pij,pj->p", v, inverse[row], v, optimize=True)
        bound = 1 + np.where(self.kept[row, column], -leverage, leverage)
        result[row, column] = squares[row, column] <= bound
        return result

    @cached_property
    def _inverse(self) -> NDArray[Any]:
        return torch.cholesky_inverse(torch.from_numpy(self.factors)).numpy()

    @cached_property
    def _leverage(self) -> NDArray[Any]:
        return self.regression.leverage(self._inverse)

    @cached_property
    def _residual_leverage(self) -> NDArray[Any]:
        return np.maximum(1 - self._leverage, 1e-9)


def predict_cells(rows: NDArray[Any], kept: NDArray[Any], regression: RowRegression) -> Cells:
    r"""Predict each cell of centered rows from the kept cells of its row.

    Leaving out cell j divides its residual by ``1 − h_j``, where ``h_j = v_jᵀ A⁻¹ v_j``. The variance of the residual
    is ``ψ/(1 − h_j)``, or ``ψ(1 + h_j)`` for cells that are not kept.

    Args:
        rows: z − μ, ``(n, m)``, finite.
        kept: ``(n, m)``, true for the cells that are used.
        regression: regression of rows onto the loadings.
    """
    n, m = rows.shape
    V = regression.V
    q = V.shape[1]
    fitted, factors = torch.empty(n, m, dtype=V.dtype), torch.empty(n, q, q, dtype=V.dtype)
    for begin in range(0, n, regression.height):
        part = slice(begin, begin + regression.height)
        codes, factors[part] = regression.codes(torch.from_numpy(rows[part]), torch.from_numpy(kept[part]))
        torch.mm(codes, V.mT, out=fitted[part])
    return Cells(rows, kept, fitted.numpy(), factors.numpy(), regression)


@dataclass(frozen=True)
class CellModel:
    """Fitted model.

    Attributes:
        center: ``(m,)``, median of each column, used for the first classification of cells.
        mean: μ, ``(m,)``.
        covariance: covariance of clean rows, ``(m, m)``.
        loadings: W, ``(m, q)``.
        noise: ψ.
        first: thresholds of deviations from ``center``.
        tails: thresholds of t divided by its spread.
        spread: spread of t, which may increase with the prediction.
    """

    center: NDArray[Any]
    mean: NDArray[Any]
    covariance: NDArray[Any]
    loadings: NDArray[Any]
    noise: float
    first: Tails
    tails: Tails
    spread: Spread

    def clean(self, Z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the mask of clean, observed cells, and the table with all other cells predicted, ``(n, m)`` each.

        Rows are independent of each other.

        Args:
            Z: ``(n, m)``, NaN if missing.
        """
        cells = self.cells(Z)
        return cells.kept, np.where(cells.kept, cells.rows, cells.fitted) + self.mean

    def cells(self, Z: NDArray[Any]) -> Cells:
        """Return the predictions of all cells, with outliers excluded as in :meth:`clean`.

        Args:
            Z: ``(n, m)``, NaN if missing.
        """
        observed = ~np.isnan(Z)
        rows = np.where(observed, Z - self.mean, 0.0)
        regression = RowRegression(self.loadings, self.noise)
        kept = observed & (self.first.ratio(np.where(observed, Z - self.center, 0.0)) <= 1)
        for _ in range(LAST_SWEEPS):
            cells = predict_cells(rows, kept, regression)
            kept = _sweep(kept, observed, self.ratio(cells))
        kept = self._reclassify_rows(rows, kept, observed, regression)
        return predict_cells(rows, kept, regression)

    def ratio(self, cells: Cells) -> NDArray[Any]:
        """Return |t| relative to its threshold, ``(n, m)``; cells above 1 are outliers."""
        return self.tails.ratio(self.residuals(cells))

    def residuals(self, cells: Cells) -> NDArray[Any]:
        """Return t divided by its spread, ``(n, m)``."""
        return cells.t / self.spread.at(cells.rows - cells.residual)

    def _reclassify_rows(
        self, rows: NDArray[Any], kept: NDArray[Any], observed: NDArray[Any], regression: RowRegression
    ) -> NDArray[Any]:
        """Classify rows that have lost more than half of their cells again, starting from all of their cells.

        Cells far from the center are dropped first. Two such cells of a row may confirm each other, but not while both
        are dropped. The new classification is used if the kept cells are consistent and at least half of the row.
        """
        some = np.nonzero(2 * kept.sum(axis=1) < observed.sum(axis=1))[0]
        if not len(some):
            return kept
        part, seen = rows[some], observed[some]
        again = seen
        for _ in range(LAST_SWEEPS):
            cells = predict_cells(part, again, regression)
            ratio = self.ratio(cells)
            again = _sweep(again, seen, ratio)
        ratio = self.ratio(predict_cells(part, again, regression))
        agree = ~(again & (ratio > 1)).any(axis=1) & (2 * again.sum(axis=1) >= seen.sum(axis=1))
        result = kept.copy()
        result[some[agree]] = again[agree]
        return result


def row_distances(Z: NDArray[Any], mean: NDArray[Any], loadings: NDArray[Any], noise: float) -> NDArray[Any]:
    r"""Return the squared Mahalanobis distance of each row, divided by its number of observed cells, ``(n,)``.

    The distance is ``(z − μ)ᵀ (W Wᵀ + ψI)⁻¹ (z − μ)`` over the observed cells; 0 for rows without observed cells.

    Args:
        Z: ``(n, m)``, NaN if missing.
        mean: μ, ``(m,)``.
        loadings: W, ``(m, q)``.
        noise: ψ, above 0.
    """
    regression = RowRegression(loadings, noise)
    V = regression.V
    A = torch.diag(regression.ridge) + V.mT @ V
    result = np.empty(len(Z))
    for begin in range(0, len(Z), regression.height):
        part = slice(begin, begin + regression.height)
        observed = ~np.isnan(Z[part])
        complete = observed.all()
        rows = torch.from_numpy(Z[part] - mean if complete else np.where(observed, Z[part] - mean, 0.0))
        if complete:  # one Gram matrix for all rows
            codes = torch.linalg.solve(A, rows @ V, left=False)
        else:
            codes, _ = regression.codes(rows, torch.from_numpy(observed))
        residual = torch.addmm(rows, codes, V.mT, alpha=-1)
        if not complete:
            residual.mul_(torch.from_numpy(observed))
        squares = residual.square().sum(dim=1) / noise + (codes.square() * (regression.ridge / noise)).sum(dim=1)
        result[part] = squares.numpy() / np.maximum(observed.sum(axis=1), 1)
    return result


def fit_cell_model(Z: NDArray[Any]) -> CellModel:
    """Fit the model by expectation-maximization; each iteration classifies the cells again.

    Args:
        Z: ``(n, m)``, columns in comparable units, NaN if missing.
    """
    n, m = Z.shape
    observed = ~np.isnan(Z)
    center = robust_location(Z)
    deviations = np.where(observed, Z - center, 0.0)
    first = fit_tails(deviations, observed)
    kept = observed & (first.ratio(deviations) <= 1)
    q = max(1, min(m - 1, n // ROWS_PER_COMPONENT, COMPONENTS))
    values = np.where(kept, Z, center)
    extra = np.zeros((m, m))
    for _ in range(ITERATIONS):
        mean = values.mean(axis=0)
        centered = values - mean
        covariance = centered.T @ centered / n + extra
        components, spectrum, total = principal_components(covariance, None, q)
        rest = max(total - float(spectrum.sum()), 0.0) / max(m - q, 1)
        noise = max(rest, 1e-6 * float(spectrum[0]), np.finfo(float).tiny ** 0.5)
        loadings = components.T * np.sqrt(np.maximum(spectrum - noise, 0.0))
        rows = np.where(observed, Z - mean, 0.0)
        regression = RowRegression(loadings, noise)
        cells = predict_cells(rows, kept, regression)
        spread = fit_spread(cells.t, rows - cells.residual, observed)
        for _ in range(SWEEPS):
            t = cells.t / spread.at(rows - cells.residual)
            tails = fit_tails(t, observed)
            kept = _sweep(kept, observed, tails.ratio(t))
            cells = predict_cells(rows, kept, regression)
        model = CellModel(center, mean, covariance, loadings, noise, first, tails, spread)
        before, kept = kept, model._reclassify_rows(rows, kept, observed, regression)
        if not np.array_equal(before, kept):
            cells = predict_cells(rows, kept, regression)
        values = np.where(kept, rows, cells.fitted) + mean
        extra = _uncertainty(cells.gram, ~kept, loadings, noise)
    return model


def _sweep(kept: NDArray[Any], observed: NDArray[Any], ratio: NDArray[Any]) -> NDArray[Any]:
    """Restore cells that agree with their rows, and drop the worst cell of each row that does not.

    Only one cell is dropped at a time, because an outlying cell distorts the predictions of the others.
    """
    result = kept | (observed & (ratio <= 1))
    worst = np.where(kept, ratio, 0.0)
    column = worst.argmax(axis=1)
    rows = np.nonzero(worst[np.arange(len(worst)), column] > 1)[0]
    result[rows, column[rows]] = False
    return result


def _uncertainty(gram: NDArray[Any], dropped: NDArray[Any], loadings: NDArray[Any], noise: float) -> NDArray[Any]:
    """Return the mean conditional covariance of the cells that are not kept, ``(m, m)``."""
    n, m = dropped.shape
    result = np.diag(noise * dropped.sum(axis=0).astype(float))
    rows = np.nonzero(dropped.any(axis=1))[0]
    for begin in range(0, len(rows), chunk := max(1, AT_ONCE // (m * m))):
        some = rows[begin : begin + chunk]
        block = loadings @ gram[some] @ loadings.T
        block *= dropped[some][:, :, None]
        block *= dropped[some][:, None, :]
        result += block.sum(axis=0)
    return result / n
