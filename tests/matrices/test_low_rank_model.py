"""Cells of a matrix of low rank, judged from robust regression and from a separation."""

import numpy as np
import pytest

from dop_lightning.matrices.cell_model import predict_cells
from dop_lightning.matrices.low_rank_model import LIMIT, certified_model
from dop_lightning.matrices.row_regression import RowRegression


@pytest.mark.parametrize("columns", [6, 200])  # leverages near 1, and small ones
def test_within_is_a_bound_on_the_standardized_residual(columns: int) -> None:
    draw = np.random.default_rng(0)
    loadings = np.linalg.qr(draw.normal(size=(columns, 3)))[0] * np.sqrt(columns)
    rows = draw.normal(size=(80, 3)) @ loadings.T + draw.normal(size=(80, columns))
    cells = predict_cells(rows, draw.random(rows.shape) < 0.8, RowRegression(loadings, 1.0))
    for limit in (0.5, 2.0):
        assert np.array_equal(cells.within(limit), np.abs(cells.t) <= limit)


@pytest.mark.parametrize(("noise", "is_single"), [(1e-5, False), (1e-2, True)])
def test_separation_replaces_robust_regression(noise: float, is_single: bool) -> None:
    draw = np.random.default_rng(0)
    left, right = draw.normal(size=(150, 4)), np.linalg.qr(draw.normal(size=(100, 4)))[0].T * 3
    clean = left @ right
    Z = clean + noise * draw.normal(size=clean.shape)
    outliers = draw.random(Z.shape) < 0.1
    Z[outliers] += draw.normal(0, 5, outliers.sum())
    Z[0, :3] = np.nan
    basis = np.linalg.qr(right.T)[0].T
    model = certified_model(clean @ basis.T, basis, noise, center=True)
    assert model.is_single == is_single
    kept, values = model.clean(Z)
    again, same = model.clean(Z, low_rank=(clean @ basis.T, basis))
    assert np.array_equal(kept, again)
    assert np.allclose(values, same, rtol=0, atol=1e-6)
    assert not kept[0, :3].any()
    assert np.abs(values - clean).max() <= 1.5 * LIMIT * noise
