"""Residuals that grow with the predicted value."""

import numpy as np
import pytest

from dop_lightning import RobustPCA
from dop_lightning.matrices.cell_model import fit_cell_model
from dop_lightning.matrices.residual_spread import MIN_SPREAD, fit_spread


def residuals(slope: float, n: int = 400, m: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    predicted = rng.exponential(size=(n, m))
    spread = 1 + slope * (predicted - np.median(predicted, axis=0))
    return spread * rng.standard_normal((n, m)), predicted


@pytest.mark.parametrize("slope", [0.6, 1.0])
def test_the_slope_of_a_growing_spread_is_estimated(slope: float) -> None:
    t, predicted = residuals(slope, n=4000)
    spread = fit_spread(t, predicted, np.ones(t.shape, bool))
    assert np.abs(spread.slope - slope).max() < 0.15 * slope
    assert np.allclose(spread.center, np.median(predicted, axis=0))


def test_a_constant_spread_stays_constant() -> None:
    t, predicted = residuals(0.0, m=50)
    slope = fit_spread(t, predicted, np.ones(t.shape, bool)).slope
    assert (slope == 0).mean() > 0.5
    assert np.abs(slope).max() < 0.3


def test_missing_entries_do_not_count() -> None:
    t, predicted = residuals(0.6)
    observed = np.random.default_rng(1).random(t.shape) < 0.7
    expected = [fit_spread(*(x[observed[:, j], j : j + 1] for x in (t, predicted, observed))) for j in range(3)]
    spoiled = fit_spread(np.where(observed, t, np.nan), np.where(observed, predicted, np.nan), observed)
    assert np.array_equal(spoiled.slope, np.concatenate([part.slope for part in expected]))
    assert np.array_equal(spoiled.center, np.concatenate([part.center for part in expected]))


def test_few_rows_and_constant_columns_have_a_constant_spread() -> None:
    t, predicted = residuals(0.6, n=20)
    assert np.array_equal(fit_spread(t, predicted, np.ones(t.shape, bool)).slope, np.zeros(3))
    t, predicted = residuals(0.6)
    for constant in (fit_spread(0 * t, predicted, t == t), fit_spread(t, 0 * predicted, t == t)):
        assert np.array_equal(constant.slope, np.zeros(3))


def test_the_spread_has_a_lower_bound() -> None:
    t, predicted = residuals(0.6)
    spread = fit_spread(t, predicted, np.ones(t.shape, bool))
    assert spread.at(np.full((1, 3), -1e6)).tolist() == [[MIN_SPREAD] * 3]


def incomes() -> np.ndarray:
    """Three columns that are proportional up to relative errors of 12 %, as those of household budgets."""
    rng = np.random.default_rng(3)
    size = rng.lognormal(0, 0.8, (300, 1))
    return size * np.array([900.0, 300.0, 500.0]) * rng.lognormal(0, 0.12, (300, 3))


def test_large_clean_rows_are_not_outliers() -> None:
    clean = incomes()
    flagged = RobustPCA(n_components=1).fit(clean).sparse_ != 0
    largest = np.argsort(clean.sum(axis=1))[-30:]
    assert flagged[largest].mean() < 0.02
    assert flagged.mean() < 0.01


def test_bad_cells_of_a_table_with_growing_spread_are_found() -> None:
    clean = incomes()
    rng = np.random.default_rng(4)
    bad = rng.random(clean.shape) < 0.05
    damaged = clean + bad * clean.std(axis=0) * rng.uniform(8, 20, clean.shape)
    flagged = RobustPCA(n_components=1).fit(damaged).sparse_ != 0
    assert flagged[bad].mean() > 0.9
    assert flagged[~bad].mean() < 0.01


def test_a_row_whose_far_cells_agree_is_kept() -> None:
    """Both cells are far from the center; each is confirmed by the other."""
    rng = np.random.default_rng(0)
    size = rng.standard_normal((200, 1))
    Z = size * np.array([1.0, 1.0]) + 0.1 * rng.standard_normal((200, 2))
    Z[0] = [9.0, 9.1]
    Z[1] = [9.0, 0.0]
    kept, values = fit_cell_model(Z).clean(Z)
    assert kept[0].all()
    assert not kept[1, 0]
    assert kept[1, 1]
    assert np.array_equal(values[0], Z[0])
