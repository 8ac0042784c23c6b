"""Evidence from recurring patterns."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries import with_recurrence

SPECK = (0, 8, 20)
"""A speck in a line of :func:`drawing`."""


def drawing(channels: int = 1) -> torch.Tensor:
    """Lines and a speck on white."""
    y = torch.ones(channels, 48, 48)
    y[:, ::8] = 0.0
    y[:, :, ::12] = 0.0
    y[:, SPECK[1], SPECK[2]] = 1.0
    return y


def test_a_pattern_that_recurs_is_clean_and_one_that_does_not_is_an_outlier() -> None:
    y = drawing()
    clean = torch.full_like(y, 0.9)
    clean[0, 4:6] = 1.0
    found = with_recurrence(y, clean)
    assert float(found[SPECK]) < 0.75
    assert float(found[0, 16, 20]) > 0.97
    assert float(found[0, 8, 12]) > 0.9  # where lines cross
    assert torch.equal(found[0, 0], clean[0, 0])  # it has no 8 neighbours


def test_patterns_of_outliers_do_not_support_each_other() -> None:
    y = torch.ones(1, 48, 48)
    y[0, 4::8, 4::8] = 0.0
    clean = y.clone()
    assert torch.equal(with_recurrence(y, clean)[y == 0], clean[y == 0])


@pytest.mark.parametrize("kind", ["photograph", "undamaged", "destroyed", "row"])
def test_recurrence_is_skipped_without_repetition(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    y, level = {
        "photograph": (torch.rand(1, 32, 32, generator=generator), 0.9),
        "undamaged": (drawing(), 1.0),
        "destroyed": (drawing(), 0.5),
        "row": (torch.zeros(1, 1, 32), 0.9),
    }[kind]
    clean = torch.full_like(y, level)
    assert torch.equal(with_recurrence(y, clean), clean)


def test_unobserved_entries_and_their_neighbours_keep_their_probability() -> None:
    y = drawing()
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[0, 16, 20] = False
    clean = torch.full_like(y, 0.9) * observed
    found = with_recurrence(y, clean, observed)
    assert torch.equal(found[0, 15:18, 19:22], clean[0, 15:18, 19:22])
    other = torch.where(observed, y, 0.5)
    assert torch.equal(with_recurrence(other, clean, observed), found)


def test_whole_pixels_have_one_probability() -> None:
    y = drawing(3)
    y[1] *= 0.5
    found = with_recurrence(y, torch.full_like(y, 0.9), per_pixel=True)
    assert torch.equal(found[:1].expand_as(found), found)
    assert float(found[SPECK]) < 0.75 < float(found[0, 16, 20])


def test_channels_without_missing_values_are_unchanged() -> None:
    y = drawing(3)
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[0, 16, 20] = False
    clean = torch.full_like(y, 0.9) * observed
    found = with_recurrence(y, clean, observed, per_pixel=True)
    assert torch.equal(found[:, 16, 20], clean[:, 16, 20])


def test_value_without_outliers_stays_clean() -> None:
    y = drawing()
    y[0, 20, 20] = 0.4
    clean = torch.where(y == 0, 0.9, 1.0)
    assert float(with_recurrence(y, clean)[0, 20, 20]) == 1.0
