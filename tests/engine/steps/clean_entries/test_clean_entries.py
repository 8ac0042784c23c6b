"""Telling corrupted entries from clean ones without the truth."""

import math

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import clean_probability, fit_mixture, outlier_density
from dop_lightning.engine.steps.clean_entries.activity import activity, classes
from dop_lightning.engine.steps.clean_entries.mixture import LEAST_SCALE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(channels: int = 3, side: int = 48) -> Tensor:
    """Smooth shades with an edge."""
    x = torch.linspace(0.2, 0.8, side)
    shades = 0.5 * x[None, :, None] + 0.5 * x[None, None, :]
    image = shades.repeat(channels, 1, 1) * torch.linspace(0.8, 1.0, channels)[:, None, None]
    image[:, :, side // 2 :] -= 0.15
    return image


def damaged(truth: Tensor, share: float, values: str, pixels: bool = False) -> tuple[Tensor, Tensor]:
    """An observation, and which of its entries are clean."""
    shape = (1, *truth.shape[1:]) if pixels else truth.shape
    hit = (torch.rand(shape, generator=generator(1)) < share).expand(truth.shape)
    draw = torch.rand(truth.shape, generator=generator(2))
    return torch.where(hit, draw.round() if values == "salt and pepper" else draw, truth), ~hit


def everything(y: Tensor) -> Tensor:
    return torch.ones_like(y, dtype=torch.bool)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("error", [0.01, 0.05])
def test_dead_and_hot_pixels_are_found_whatever_their_share(share: float, error: float) -> None:
    truth = picture()
    y, clean = damaged(truth, share, "salt and pepper")
    estimate = truth + error * torch.randn(truth.shape, generator=generator())
    found = clean_probability(y, estimate, everything(y)) > 0.5
    assert (found == clean).float().mean() > 0.999


def test_an_estimate_that_is_wrong_by_much_condemns_no_value_that_outliers_have_not() -> None:
    """The case that the histogram of the values is for: an edge that the network has not found yet."""
    truth = picture()
    y, clean = damaged(truth, 0.5, "salt and pepper")
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    estimate[:, 10:14, 10:14] += 0.12
    found = clean_probability(y, estimate, everything(y))
    assert bool((found[:, 10:14, 10:14][clean[:, 10:14, 10:14]] > 0.5).all())
    assert bool((found[~clean] < 0.5).all())


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_outliers_of_any_value_are_found_where_they_differ(share: float) -> None:
    truth = picture()
    y, clean = damaged(truth, share, "random")
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    found = clean_probability(y, estimate, everything(y)) > 0.5
    assert found[clean].float().mean() > 0.97
    assert found[~clean & ((y - truth).abs() > 0.3)].float().mean() < 0.01


def test_nothing_is_corrupted() -> None:
    truth = picture()
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    assert clean_probability(truth, estimate, everything(truth)).min() > 0.9


def test_pixels_that_are_corrupted_as_a_whole_are_judged_as_a_whole() -> None:
    truth = picture()
    y, clean = damaged(truth, 0.4, "random", pixels=True)
    estimate = truth + 0.03 * torch.randn(truth.shape, generator=generator())
    single, whole = (clean_probability(y, estimate, everything(y), per_pixel=joint) for joint in (False, True))
    assert torch.equal(whole, whole[:1].expand(whole.shape))
    wrong = [((found > 0.5) != clean).float().mean() for found in (single, whole)]
    assert wrong[1] < 0.5 * wrong[0]


def test_what_was_not_observed_has_no_say() -> None:
    truth = picture()
    y, clean = damaged(truth, 0.3, "salt and pepper")
    observed = torch.rand(truth.shape, generator=generator(7)) < 0.7
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    one = clean_probability(y, estimate, everything(y), observed=observed)
    other = clean_probability(y.where(observed, 99.0), estimate, everything(y), observed=observed)
    torch.testing.assert_close(one[observed], other[observed])
    assert bool((one[~observed] == 0).all())
    assert ((one > 0.5) == clean)[observed].float().mean() > 0.999
    assert bool((clean_probability(y, estimate, everything(y), observed=~everything(y)) == 0).all())


def test_of_pixels_that_were_observed_in_part_the_channels_that_were_decide() -> None:
    truth = picture()
    y, clean = damaged(truth, 0.3, "salt and pepper", pixels=True)
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    observed = torch.rand(truth.shape, generator=generator(7)) < 0.6
    observed[2] = False
    one, other = (
        clean_probability(y.where(observed, gap), estimate, everything(y), observed=observed, per_pixel=True)
        for gap in (0.0, 99.0)
    )
    assert torch.equal(one, other)
    assert bool((one[~observed] == 0).all())
    assert ((one > 0.5) == clean)[observed].float().mean() > 0.999


def test_parts_of_pixels_cannot_be_held_out() -> None:
    y = picture()
    held_out = ~everything(y)
    held_out[0, 3, 3] = True
    with pytest.raises(ValueError, match="held_out must be of whole pixels with per_pixel"):
        clean_probability(y, y, held_out, per_pixel=True)


def test_entries_that_the_estimate_was_fitted_to_do_not_make_it_look_better_than_it_is() -> None:
    """The held-out entries alone tell its error: else clean ones at which it is wrong were called outliers."""
    truth = picture()
    y, clean = damaged(truth, 0.3, "random")
    held_out = torch.rand(truth.shape, generator=generator(5)) < 0.1
    error = 0.05 * torch.randn(truth.shape, generator=generator())
    estimate = torch.where(held_out | ~clean, truth + error, truth)  # the others were followed to the last digit
    honest = clean_probability(y, estimate, held_out)
    fooled = clean_probability(y, estimate, ~held_out)
    apart = held_out & clean
    assert (honest[apart] > 0.5).float().mean() > 0.93 > (fooled[apart] > 0.5).float().mean() + 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 8), (40,), (6, 7)])
def test_any_shape_and_constant_observations(shape: tuple[int, ...]) -> None:
    y = torch.full(shape, 0.5)
    clean = clean_probability(y, y.clone(), everything(y))
    assert clean.shape == shape
    assert bool(torch.isfinite(clean).all())
    assert clean.min() > 0.5


def test_units_do_not_matter() -> None:
    truth = picture()
    y, _ = damaged(truth, 0.5, "random")
    estimate = truth + 0.03 * torch.randn(truth.shape, generator=generator())
    one = clean_probability(y, estimate, everything(y))
    other = clean_probability(1000 * y, 1000 * estimate, everything(y), scale=1000.0)
    assert ((one > 0.5) == (other > 0.5)).float().mean() > 0.999


def test_the_fit_finds_the_share_and_the_scales() -> None:
    draw = torch.distributions.StudentT(3.0)
    torch.manual_seed(0)
    scales = torch.tensor([0.01, 0.05])
    kinds = torch.randint(0, 2, (40_000,), generator=generator())
    residual = draw.sample((40_000,)) * scales[kinds]
    hit = torch.rand(40_000, generator=generator(1)) < 0.3
    residual = torch.where(hit, 2 * torch.rand(40_000, generator=generator(2)) - 1, residual)
    fitted = fit_mixture(residual, kinds, torch.full_like(residual, 0.5), (~hit).float(), LEAST_SCALE)
    assert float(fitted.corrupted) == pytest.approx(0.3, abs=0.015)
    torch.testing.assert_close(fitted.scales, scales, rtol=0.08, atol=0)
    assert float(fitted.prior_log_odds()) == pytest.approx(math.log(0.7 / 0.3), abs=0.08)


def test_density_of_outliers_is_that_of_their_values() -> None:
    """Also of values near which many estimates lie, so that most of these outliers are not told by their distance."""
    estimate = torch.cat([torch.full((9000,), 0.9), torch.full((1000,), 0.1)])
    estimate += 0.02 * torch.randn(10_000, generator=generator())
    y = estimate.clone()
    hit = torch.rand(10_000, generator=generator(1)) < 0.5
    y = torch.where(hit, torch.rand(10_000, generator=generator(2)).round(), y)
    density = outlier_density(y, estimate, far=0.25)
    at_zero, at_one = density[hit & (y == 0)][0], density[hit & (y == 1)][0]
    assert float(at_zero / at_one) == pytest.approx(1.0, abs=0.35)
    assert float(at_one / density[~hit].median()) > 20


def test_activity_is_high_at_edges_alone() -> None:
    found = activity(picture(1))
    assert found[0, :, 23:25].min() > 3 * found[0, :, :20].max()
    assert bool((activity(torch.randn(5)) == 0).all())


def test_classes_are_of_equal_size() -> None:
    kinds = classes(torch.rand(1000, generator=generator()), 8)
    assert torch.bincount(kinds).tolist() == [125] * 8
    assert bool((classes(torch.zeros(10), 8) == classes(torch.zeros(10), 8)[0]).all())
