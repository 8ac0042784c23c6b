"""Robust regression of rows onto known components."""

import numpy as np
import pytest

from dop_lightning.matrices.clipped_codes import clipped_codes
from dop_lightning.matrices.row_regression import RowRegression


def rows_of(share: float, missing: float = 0.0, m: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Orthonormal components, codes, rows with outliers and noise of 0.01, and which entries were observed."""
    rng = np.random.default_rng(0)
    V = np.linalg.qr(rng.normal(size=(m, 5)))[0]
    codes = rng.normal(size=(40, 5)) * (m / 5) ** 0.5
    rows = codes @ V.T + 0.01 * rng.normal(size=(40, m))
    rows += (rng.random(rows.shape) < share) * rng.normal(0, 10, rows.shape)
    rows[0, 0] = 1e9
    observed = rng.random(rows.shape) >= missing
    return V, codes, np.where(observed, rows, 0.0), observed


@pytest.mark.parametrize(("share", "missing"), [(0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (0.5, 0.0), (0.2, 0.3)])
def test_codes_are_accurate_up_to_the_noise(share: float, missing: float) -> None:
    V, codes, rows, observed = rows_of(share, missing)
    found = clipped_codes(rows, observed, RowRegression(V * 3, 0.01**2))
    assert np.linalg.norm(found - codes, axis=1).max() < 8 * 0.01 * 5**0.5


def test_a_row_does_not_depend_on_the_others() -> None:
    V, _, rows, observed = rows_of(0.3)
    regression = RowRegression(V, 0.01**2)
    together = clipped_codes(rows, observed, regression)
    alone = clipped_codes(rows[7:8], observed[7:8], regression)
    np.testing.assert_allclose(alone[0], together[7], rtol=1e-5, atol=1e-5)


def test_rows_without_entries_have_no_codes() -> None:
    V, _, rows, _ = rows_of(0.0)
    found = clipped_codes(np.zeros_like(rows), np.zeros(rows.shape, dtype=bool), RowRegression(V, 0.01**2))
    assert (found == 0).all()
