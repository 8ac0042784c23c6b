"""Outliers of values that say little are counted by those of others."""

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.lift import PARTS, SHIFT, lifted
from dop_lightning.engine.steps.clean_entries.values import Bins, fit_values


def night(side: int = 96) -> Tensor:
    """Most of it about as dark, a few bright lights; one dimension."""
    generator = torch.Generator().manual_seed(0)
    dark = 0.3 + 0.07 * torch.randn(side * side, generator=generator)
    return torch.where(torch.rand(side * side, generator=generator) < 0.05, 0.95, dark).clamp(0, 1)


def share_of(y: Tensor, estimate: Tensor) -> float:
    far = (y - estimate).abs() > 0.25
    return float(fit_values(Bins.of(y, estimate, 0.25), far.to(y.dtype), far, torch.ones_like(far)).share)


@pytest.mark.parametrize("level", [0.1, 0.3, 0.5])
def test_random_values_that_attract_the_estimate_are_counted(level: float) -> None:
    generator = torch.Generator().manual_seed(1)
    truth = night()
    y = torch.where(
        torch.rand(truth.shape, generator=generator) < level, torch.rand(truth.shape, generator=generator), truth
    )
    estimate = truth + 0.06 * (y - truth)
    corrupted = float((y != truth).float().mean())
    assert share_of(y, estimate) == pytest.approx(corrupted, rel=0.06)


def test_fraction_of_salt_and_pepper_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = night()
    dead = torch.rand(truth.shape, generator=generator)
    y = torch.where(dead < 0.2, 0.0, torch.where(dead > 0.8, 1.0, truth))
    assert share_of(y, truth) == pytest.approx(float((y != truth).float().mean()), rel=0.05)


def test_salt_and_pepper_is_not_lifted_if_only_extremes_are_reliable() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = 0.3 + 0.4 * torch.rand(20_000, generator=generator)  # every other value is just far from many of these
    dead = torch.rand(truth.shape, generator=generator)
    y = torch.where(dead < 0.25, 0.0, torch.where(dead > 0.75, 1.0, truth))
    assert share_of(y, truth) == pytest.approx(0.5, rel=0.05)


def test_no_lift_with_too_few_reliable_parts() -> None:
    rates = torch.linspace(0, 0.1, PARTS)
    far = torch.full((PARTS, 4), 0.5)
    assert torch.equal(lifted(rates, far, far / 2), rates)
    assert torch.equal(lifted(rates, far, far), rates)
    assert SHIFT > 0


def test_unreliable_parts_get_the_median_of_the_others() -> None:
    rates = torch.full((PARTS,), 0.02)
    rates[[2, 5]] = torch.tensor([0.001, 0.05])
    far, further = torch.full((PARTS, 4), 0.5), torch.full((PARTS, 4), 0.49)
    further[[2, 5]] = 0.2
    result = lifted(rates, far, further)
    assert result[2] == pytest.approx(0.02)
    assert result[5] == pytest.approx(0.05)  # never less than was counted
