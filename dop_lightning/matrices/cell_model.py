r"""Probabilistic PCA of a table with outlying cells: each is compared with its prediction from the rest of its row.

The model of a row is ``z = μ + W c + ε`` with ``c ~ N(0, I)`` and ``ε ~ N(0, ψI)`` [Tipping and Bishop, 1999]. Outlying
cells are treated as missing, as in cellwise robust covariance estimation [Raymaekers and Rousseeuw, 2023]. Surplus
components are shrunk by their prior, so their number need not be known.

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
"""Components of the model of a table, at most, unless a larger rank is known."""

ROWS_PER_COMPONENT = 5

DENSE_COLUMNS = 256
"""Columns up to which the covariance is formed."""

ITERATIONS, SWEEPS, LAST_SWEEPS = 10, 2, 10

AT_ONCE = 2**18
"""Entries of rows, or of their Gram matrices, that are worked on at once."""


@dataclass(frozen=True)
class Cells:
    """What the model says of each cell.

    Attributes:
        rows: z − μ, ``(n, m)``.
        kept: ``(n, m)``, true for the cells that were used.
        fitted: ``(n, m)``: prediction from all kept cells of the row.
        factors: ``(n, q, q)``: Cholesky factors of A of the regression.
        regression: of the rows.
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
        """Cell minus its prediction from the other kept cells of the row, ``(n, m)``."""
        residual = self.rows - self.fitted
        return np.divide(residual, self._rest, out=residual, where=self.kept)

    @property
    def variance(self) -> NDArray[Any]:
        """Variance of that residual, in the model, ``(n, m)``."""
        noise = self.regression.noise
        return np.where(self.kept, noise / self._rest, noise * (1 + self._leverage))

    @property
    def t(self) -> NDArray[Any]:
        """The standardized residual, ``(n, m)``."""
        return self.residual / np.sqrt(self.variance)

    def within(self, limit: float) -> NDArray[Any]:
        """Return which cells have ``|t| ≤ limit``, ``(n, m)``.

        Args:
            limit: above 0.
        """
        squares = self.rows - self.fitted
        squares *= squares
        squares /= limit**2 * self.regression.noise
        inverse = self._inverse
        # leverage is at most this, and decides about few cells if it is small
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
    def _rest(self) -> NDArray[Any]:
        return np.maximum(1 - self._leverage, 1e-9)


def predict_cells(rows: NDArray[Any], kept: NDArray[Any], regression: RowRegression) -> Cells:
    r"""Predict each cell of centered rows from the kept cells of its row.

    Leaving out cell j divides its residual by ``1 − h_j``, ``h_j = v_jᵀ A⁻¹ v_j``; the variance is ``ψ/(1 − h_j)``, and
    ``ψ(1 + h_j)`` for cells that are not kept.

    Args:
        rows: z − μ, ``(n, m)``, finite.
        kept: ``(n, m)``, true for the cells that are used.
        regression: of rows onto the loadings.
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
    """A fitted model.

    Attributes:
        center: ``(m,)``: the median of each column, from which cells are first judged.
        mean: μ, ``(m,)``.
        covariance: ``(m, m)``, of clean rows.
        loadings: W, ``(m, q)``.
        noise: ψ.
        first: thresholds of deviations from ``center``.
        tails: thresholds of t, divided by its spread.
        spread: of t, which may grow with the prediction.
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
        """Return which cells are observed and clean, and the table with the predictions of all others, ``(n, m)``.

        A row does not depend on the others.

        Args:
            Z: ``(n, m)``, NaN where missing.
        """
        cells = self.cells(Z)
        return cells.kept, np.where(cells.kept, cells.rows, cells.fitted) + self.mean

    def cells(self, Z: NDArray[Any]) -> Cells:
        """Return what the model says of each cell, as in :meth:`clean`.

        Args:
            Z: ``(n, m)``, NaN where missing.
        """
        observed = ~np.isnan(Z)
        rows = np.where(observed, Z - self.mean, 0.0)
        regression = RowRegression(self.loadings, self.noise)
        kept = observed & (self.first.ratio(np.where(observed, Z - self.center, 0.0)) <= 1)
        for _ in range(LAST_SWEEPS):
            cells = predict_cells(rows, kept, regression)
            kept = _swept(kept, observed, self.ratio(cells))
        kept = self._reconsidered(rows, kept, observed, regression)
        return predict_cells(rows, kept, regression)

    def ratio(self, cells: Cells) -> NDArray[Any]:
        """Return |t| in units of its threshold, ``(n, m)``; above 1 the cell is an outlier."""
        return self.tails.ratio(self.residuals(cells))

    def residuals(self, cells: Cells) -> NDArray[Any]:
        """Return t divided by its spread, ``(n, m)``."""
        return cells.t / self.spread.at(cells.rows - cells.residual)

    def _reconsidered(
        self, rows: NDArray[Any], kept: NDArray[Any], observed: NDArray[Any], regression: RowRegression
    ) -> NDArray[Any]:
        """Judge rows that have lost more than half of their cells anew, starting from all of their cells.

        Cells far from the center are dropped first. Two such cells of a row may confirm each other, which is not seen
        while both are dropped. The new verdict is used if the cells that it keeps agree, and are at least half.
        """
        some = np.nonzero(2 * kept.sum(axis=1) < observed.sum(axis=1))[0]
        if not len(some):
            return kept
        part, seen = rows[some], observed[some]
        again = seen
        for _ in range(LAST_SWEEPS):
            cells = predict_cells(part, again, regression)
            ratio = self.ratio(cells)
            again = _swept(again, seen, ratio)
        ratio = self.ratio(predict_cells(part, again, regression))
        agree = ~(again & (ratio > 1)).any(axis=1) & (2 * again.sum(axis=1) >= seen.sum(axis=1))
        result = kept.copy()
        result[some[agree]] = again[agree]
        return result


def row_distances(Z: NDArray[Any], mean: NDArray[Any], loadings: NDArray[Any], noise: float) -> NDArray[Any]:
    r"""Return the squared Mahalanobis distance of each row, divided by its number of observed cells, ``(n,)``.

    ``(z − μ)ᵀ (W Wᵀ + ψI)⁻¹ (z − μ)`` over the observed cells; 0 where nothing was observed.

    Args:
        Z: ``(n, m)``, NaN where missing.
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
    """Fit the model by expectation-maximization, judging cells anew in each iteration.

    Args:
        Z: ``(n, m)``, columns in comparable units, NaN where missing.
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
            kept = _swept(kept, observed, tails.ratio(t))
            cells = predict_cells(rows, kept, regression)
        model = CellModel(center, mean, covariance, loadings, noise, first, tails, spread)
        before, kept = kept, model._reconsidered(rows, kept, observed, regression)
        if not np.array_equal(before, kept):
            cells = predict_cells(rows, kept, regression)
        values = np.where(kept, rows, cells.fitted) + mean
        extra = _uncertainty(cells.gram, ~kept, loadings, noise)
    return model


def _swept(kept: NDArray[Any], observed: NDArray[Any], ratio: NDArray[Any]) -> NDArray[Any]:
    """Take back cells that agree with their rows, and drop the worst other one of each row.

    One at a time, since an outlying cell spoils the predictions of the others.
    """
    result = kept | (observed & (ratio <= 1))
    worst = np.where(kept, ratio, 0.0)
    column = worst.argmax(axis=1)
    rows = np.nonzero(worst[np.arange(len(worst)), column] > 1)[0]
    result[rows, column[rows]] = False
    return result


def _uncertainty(gram: NDArray[Any], dropped: NDArray[Any], loadings: NDArray[Any], noise: float) -> NDArray[Any]:
    """The mean conditional covariance of the cells that are not kept, ``(m, m)``."""
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
