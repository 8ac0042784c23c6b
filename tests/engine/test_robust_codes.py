"""Robust regression onto known components."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

from dop_lightning.engine.robust_codes import robust_codes


def rows_and_components(share: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with gross errors, their codes, and the components."""
    generator = torch.Generator().manual_seed(0)
    V = torch.linalg.qr(torch.randn(40, 3, dtype=torch.float64, generator=generator)).Q.mT
    codes = torch.randn(25, 3, dtype=torch.float64, generator=generator)
    outliers = (torch.rand(25, 40, dtype=torch.float64, generator=generator) < share) * 30.0
    return codes @ V + outliers, codes, V


def test_outliers_have_no_influence() -> None:
    rows, codes, V = rows_and_components()
    torch.testing.assert_close(robust_codes(rows, V), codes, atol=2e-5, rtol=0)


def test_missing_entries_have_no_influence() -> None:
    rows, codes, V = rows_and_components(0.1)
    mask = torch.rand(rows.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[3] = False
    found = robust_codes(torch.where(mask, rows, 1e6), V, mask)
    torch.testing.assert_close(found[4:], codes[4:], atol=2e-5, rtol=0)
    assert found[3].tolist() == [0, 0, 0]


def test_solves_the_linear_program() -> None:
    """Where no code fits exactly: least absolute deviations, against HiGHS."""
    generator = torch.Generator().manual_seed(2)
    V = torch.randn(2, 15, dtype=torch.float64, generator=generator)
    y = torch.randn(1, 15, dtype=torch.float64, generator=generator)
    # min Σt, −t ≤ y − cV ≤ t
    A = np.block([[-V.numpy().T, -np.eye(15)], [V.numpy().T, -np.eye(15)]])
    program = linprog(
        np.r_[np.zeros(2), np.ones(15)],
        A,
        np.r_[-y.numpy()[0], y.numpy()[0]],
        bounds=[(None, None)] * 2 + [(0, None)] * 15,
    )
    torch.testing.assert_close(robust_codes(y, V), torch.from_numpy(program.x[None, :2]), atol=1e-4, rtol=0)


def test_penalty_applies_to_the_codes() -> None:
    generator = torch.Generator().manual_seed(3)
    V = torch.randn(2, 12, dtype=torch.float64, generator=generator)
    y = torch.randn(1, 12, dtype=torch.float64, generator=generator)
    penalty = torch.tensor([1.0, 6.0], dtype=torch.float64)

    def value(c: np.ndarray) -> float:
        return float(np.abs(y.numpy()[0] - c @ V.numpy()).sum() + 0.5 * (penalty.numpy() * c**2).sum())

    least = minimize(value, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert value(robust_codes(y, V, penalty=penalty).numpy()[0]) <= least.fun + 1e-6


def test_a_row_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _, V = rows_and_components()
    whole = robust_codes(rows, V)
    torch.testing.assert_close(robust_codes(rows[5:7], V), whole[5:7], atol=1e-10, rtol=0)
    monkeypatch.setattr("dop_lightning.engine.robust_codes.AT_ONCE", 4 * V.shape[1])
    torch.testing.assert_close(robust_codes(rows, V), whole, atol=1e-10, rtol=0)


def test_zero_gives_zero() -> None:
    assert robust_codes(torch.zeros(4, 5), torch.zeros(0, 5)).shape == (4, 0)
    assert robust_codes(torch.zeros(0, 5), torch.zeros(2, 5)).shape == (0, 2)
    assert robust_codes(torch.zeros(4, 5), torch.ones(1, 5)).tolist() == [[0.0]] * 4


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same number of columns"):
        robust_codes(torch.zeros(4, 5), torch.zeros(2, 6))


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_units_and_rows_of_zeros_do_not_matter(unit: float) -> None:
    rows, codes, V = (tensor.float() for tensor in rows_and_components(0.1))
    rows[2] = 0
    found = robust_codes(rows * unit, V) / unit
    torch.testing.assert_close(found[3:], codes[3:], atol=1e-3, rtol=0)
    assert found[2].tolist() == [0, 0, 0]


def test_iterations_must_be_two() -> None:
    with pytest.raises(ValueError, match="iterations must be"):
        robust_codes(torch.ones(2, 3), torch.ones(1, 3), iterations=1)
