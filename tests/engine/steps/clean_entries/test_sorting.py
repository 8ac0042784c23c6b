"""Sorting by NumPy gives what torch gives."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries.sorting import ascending, stable_order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.float16])
def test_values_are_those_of_torch(dtype: torch.dtype) -> None:
    values = (100 * torch.randn(40, 50, generator=torch.Generator().manual_seed(0))).to(dtype)
    assert torch.equal(ascending(values), values.flatten().sort().values)
    assert ascending(values[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_positions_are_those_of_torch(dtype: torch.dtype) -> None:
    """With many ties, both signs, both zeros and infinity."""
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).mul(10).round().to(dtype) / 10
    values[::7], values[3::7], values[5], values[6] = 0.0, -0.0, torch.inf, -torch.inf
    assert torch.equal(stable_order(values), values.sort(stable=True).indices)
    assert stable_order(values[:0]).shape == (0,)
