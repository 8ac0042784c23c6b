r"""Probabilistic PCA of a table with outlying cells: each is compared with its prediction from the rest of its row.

The model of a row is ``z = μ + W c + ε`` with ``c ~ N(0, I)`` and ``ε ~ N(0, ψI)`` [Tipping and Bishop, 1999]. Outlying
cells are treated as missing, as in cellwise robust covariance estimation [Raymaekers and Rousseeuw, 2023]. Surplus
components are shrunk by their prior, so their number need not be known.

Shapes: n rows, m columns, q components of the model.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dop_lightning.matrices.column_scale import robust_location
from dop_lightning.matrices.principal import principal_components
from dop_lightning.matrices.residual_spread import Spread, fit_spread
from dop_lightning.matrices.residual_tails import Tails, fit_tails

COMPONENTS = 20
"""Components of the model of a table, at most, unless a larger rank is known."""

ROWS_PER_COMPONENT = 5

DENSE_COLUMNS = 256
"""Columns up to which the covariance is formed."""

ITERATIONS, SWEEPS, LAST_SWEEPS = 10, 2, 10

AT_ONCE = 2**22
"""Entries of the Gram matrices of rows that are worked on at once."""


class Cells(NamedTuple):
    """What the model says of each cell.

    Attributes:
        fitted: ``(n, m)``: prediction from all kept cells of the row.
        residual: ``(n, m)``: cell minus its prediction from the other kept cells of the row.
        variance: ``(n, m)``: variance of that residual, in the model.
        gram: ``(n, q, q)``: covariance of the codes.
    """

    fitted: NDArray[Any]
    residual: NDArray[Any]
    variance: NDArray[Any]
    gram: NDArray[Any]

    @property
    def t(self) -> NDArray[Any]:
        """The standardized residual, ``(n, m)``."""
        return self.residual / np.sqrt(self.variance)


def predict_cells(rows: NDArray[Any], kept: NDArray[Any], loadings: NDArray[Any], noise: float) -> Cells:
    r"""Predict each cell of centered rows from the kept cells of its row.

    With M = I + Σ_j w_j w_jᵀ/ψ over the kept cells of a row, its codes are ``M⁻¹ Σ_j w_j z_j/ψ``. Leaving out cell j
    divides its residual by ``1 − h_j``, ``h_j = w_jᵀ M⁻¹ w_j/ψ``; the variance is ``ψ/(1 − h_j)``, and
    ``ψ(1 + h_j)`` for cells that are not kept.

    Args:
        rows: z − μ, ``(n, m)``, finite.
        kept: ``(n, m)``, true for the cells that are used.
        loadings: W, ``(m, q)``.
        noise: ψ, above 0.
    """
    n, m = rows.shape
    q = loadings.shape[1]
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(m, q * q)
    chunk = max(1, AT_ONCE // max(q * q, m, 1))
    fitted, leverage, gram = np.empty((n, m)), np.empty((n, m)), np.empty((n, q, q))
    for begin in range(0, n, chunk):
        part = slice(begin, begin + chunk)
        weights = kept[part].astype(rows.dtype)
        precision = (weights @ products).reshape(len(weights), q, q) / noise + np.eye(q)
        gram[part] = np.linalg.inv(precision)
        codes = np.einsum("nab,nb->na", gram[part], (weights * rows[part]) @ loadings / noise)
        fitted[part] = codes @ loadings.T
        leverage[part] = gram[part].reshape(len(weights), q * q) @ products.T / noise
    residual = rows - fitted
    rest = np.maximum(1 - leverage, 1e-9)
    return Cells(
        fitted,
        np.where(kept, residual / rest, residual),
        np.where(kept, noise / rest, noise * (1 + leverage)),
        gram,
    )


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

    def cells(self, Z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Cells]:
        """Judge each cell of a table; a row does not depend on the others.

        Args:
            Z: ``(n, m)``, NaN where missing.

        Returns:
            Which cells are observed and clean, ``(n, m)``; the table with the predictions of all others, ``(n, m)``;
            what the model says of each cell.
        """
        observed = ~np.isnan(Z)
        rows = np.where(observed, Z - self.mean, 0.0)
        kept = observed & (self.first.ratio(np.where(observed, Z - self.center, 0.0)) <= 1)
        for _ in range(LAST_SWEEPS):
            cells = predict_cells(rows, kept, self.loadings, self.noise)
            kept = _swept(kept, observed, self.ratio(rows, cells))
        kept = self._reconsidered(rows, kept, observed)
        cells = predict_cells(rows, kept, self.loadings, self.noise)
        return kept, np.where(kept, rows, cells.fitted) + self.mean, cells

    def ratio(self, rows: NDArray[Any], cells: Cells) -> NDArray[Any]:
        """Return |t| in units of its threshold, ``(n, m)``; above 1 the cell is an outlier.

        Args:
            rows: z − μ, ``(n, m)``.
            cells: what the model says of them.
        """
        return self.tails.ratio(self.residuals(rows, cells))

    def residuals(self, rows: NDArray[Any], cells: Cells) -> NDArray[Any]:
        """Return t divided by its spread, ``(n, m)``."""
        return cells.t / self.spread.at(rows - cells.residual)

    def _reconsidered(self, rows: NDArray[Any], kept: NDArray[Any], observed: NDArray[Any]) -> NDArray[Any]:
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
            cells = predict_cells(part, again, self.loadings, self.noise)
            ratio = self.ratio(part, cells)
            again = _swept(again, seen, ratio)
        ratio = self.ratio(part, predict_cells(part, again, self.loadings, self.noise))
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
    observed = ~np.isnan(Z)
    rows = np.where(observed, Z - mean, 0.0)
    if observed.all():  # one Gram matrix for all rows
        precision = np.eye(loadings.shape[1]) + loadings.T @ loadings / noise
        fitted = np.linalg.solve(precision, (rows @ loadings).T / noise).T @ loadings.T
    else:
        fitted = predict_cells(rows, observed, loadings, noise).fitted
    squares = (rows * np.where(observed, rows - fitted, 0.0)).sum(axis=1) / noise
    return np.maximum(squares, 0.0) / np.maximum(observed.sum(axis=1), 1)


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
        cells = predict_cells(rows, kept, loadings, noise)
        spread = fit_spread(cells.t, rows - cells.residual, observed)
        for _ in range(SWEEPS):
            t = cells.t / spread.at(rows - cells.residual)
            tails = fit_tails(t, observed)
            kept = _swept(kept, observed, tails.ratio(t))
            cells = predict_cells(rows, kept, loadings, noise)
        model = CellModel(center, mean, covariance, loadings, noise, first, tails, spread)
        before, kept = kept, model._reconsidered(rows, kept, observed)
        if not np.array_equal(before, kept):
            cells = predict_cells(rows, kept, loadings, noise)
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
