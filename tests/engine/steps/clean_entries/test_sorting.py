"""Fast replacements of functions of torch: equal results."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries.lines import _median_of_five
from dop_lightning.engine.steps.clean_entries.sorting import ascending, ascending_lines, stable_order
from dop_lightning.engine.steps.clean_entries.unlabelled import Examples, Logistic, _design_matrix


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.float16])
def test_values_equal_torch(dtype: torch.dtype) -> None:
    values = (100 * torch.randn(40, 50, generator=torch.Generator().manual_seed(0))).to(dtype)
    assert torch.equal(ascending(values), values.flatten().sort().values)
    assert ascending(values[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_positions_equal_torch(dtype: torch.dtype) -> None:
    """With many ties, both signs, both zeros and infinity."""
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).mul(10).round().to(dtype) / 10
    values[::7], values[3::7], values[5], values[6] = 0.0, -0.0, torch.inf, -torch.inf
    assert torch.equal(stable_order(values), values.sort(stable=True).indices)
    assert stable_order(values[:0]).shape == (0,)


def test_lines_equal_torch() -> None:
    values = torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0))
    values[:, ::5, ::7] = torch.nan
    assert torch.equal(ascending_lines(values).nan_to_num(7), values.sort(dim=-1).values.nan_to_num(7))


@pytest.mark.parametrize("missing", [False, True])
def test_median_of_five_equals_torch(missing: bool) -> None:
    values = torch.randn(5, 4000, generator=torch.Generator().manual_seed(0)).mul(2).round()
    if missing:
        values[0, ::3], values[1:, ::5] = torch.nan, torch.nan
    assert torch.equal(_median_of_five(list(values)).nan_to_num(7), values.nanmedian(dim=0).values.nan_to_num(7))


def test_a_regression_without_a_matrix_gives_the_same_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    knots = [torch.linspace(-2, 2, 5, dtype=torch.float64), torch.linspace(-1, 3, 4, dtype=torch.float64)]
    fitted = Logistic(knots, torch.randn(10, generator=generator, dtype=torch.float64))
    seen = torch.rand(300, 3, generator=generator) < 0.7
    seen[:, 0] = True
    examples = Examples(2 * torch.randn(300, 3, 2, generator=generator), torch.randn(300, generator=generator), seen)
    expected = torch.sigmoid(examples.base.double() + _design_matrix(examples, knots) @ fitted.coefficients)
    torch.testing.assert_close(fitted.probability(examples), expected, rtol=1e-12, atol=1e-14)
