"""The median of magnitudes, without a sorted copy."""

import pytest
import torch

from dop_lightning.foundation import order_statistics
from dop_lightning.foundation.order_statistics import median_magnitude


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at_once", [100, 2**20])
def test_equals_that_of_a_sorted_copy(dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_statistics, "AT_ONCE", at_once)
    draw = torch.Generator().manual_seed(0)
    for scale in (1e-20, 1.0, 1e20):
        values = scale * torch.randn(31, 40, dtype=dtype, generator=draw)
        values[:5] = values[0, 0]  # equal values
        values[5] = -0.0
        mask = torch.rand(values.shape, generator=draw) < 0.3
        assert median_magnitude(values) == float(values.abs().flatten().sort().values[619])
        assert median_magnitude(values, mask) == float(values[mask].abs().median())
        assert median_magnitude(values.mT) == median_magnitude(values)


def test_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one entry inside the mask"):
        median_magnitude(torch.ones(3), torch.zeros(3, dtype=torch.bool))
