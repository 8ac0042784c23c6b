"""Telling corrupted entries from clean ones without the truth."""

import math

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import (
    Bins,
    Entries,
    Mixture,
    Values,
    clean_probability,
    dense_noise,
    first_look,
    first_support,
    fit_mixture,
    fit_values,
    outlier_density,
    place_evidence,
)
from dop_lightning.engine.steps.clean_entries.activity import activity, classes
from dop_lightning.engine.steps.clean_entries.estimate import _outlier_fraction
from dop_lightning.engine.steps.clean_entries.mixture import MIN_LOG_DENSITY, MIN_SCALE
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE


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
def test_dead_and_hot_pixels_are_found_at_any_fraction(share: float, error: float) -> None:
    truth = picture()
    y, clean = damaged(truth, share, "salt and pepper")
    estimate = truth + error * torch.randn(truth.shape, generator=generator())
    found = clean_probability(y, estimate, everything(y)) > 0.5
    assert (found == clean).float().mean() > 0.999


def test_poor_estimate_rejects_no_value_without_outliers() -> None:
    """The case that the histogram of the values is for: an edge that the network has not found yet."""
    truth = picture()
    y, clean = damaged(truth, 0.5, "salt and pepper")
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    estimate[:, 10:14, 10:14] += 0.12
    found = clean_probability(y, estimate, everything(y))
    assert bool((found[:, 10:14, 10:14][clean[:, 10:14, 10:14]] > 0.5).all())
    assert bool((found[~clean] < 0.5).all())


def test_values_between_8_bit_levels_are_treated_equally() -> None:
    y = torch.rand(1, 64, 64, generator=generator(4))
    levels = (y * 255).round() / 255
    far = torch.ones(y.numel(), dtype=torch.bool)
    fitted = [
        fit_values(Bins.of(each.flatten(), torch.full((y.numel(),), 0.5), 0.01), far.float(), far, far)
        for each in (y, levels)
    ]
    density = [values.of(values.outliers).mean() for values in fitted]
    assert abs(density[0] / density[1] - 1) < 0.1


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_differing_outliers_of_any_value_are_found(share: float) -> None:
    truth = picture()
    y, clean = damaged(truth, share, "random")
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    found = clean_probability(y, estimate, everything(y)) > 0.5
    assert found[clean].float().mean() > 0.96
    assert found[~clean & ((y - truth).abs() > 0.3)].float().mean() < 0.01


def test_no_corruption_is_found_in_a_clean_image() -> None:
    truth = picture()
    estimate = truth + 0.02 * torch.randn(truth.shape, generator=generator())
    assert clean_probability(truth, estimate, everything(truth)).min() > 0.9


def test_whole_pixels_are_evaluated_jointly() -> None:
    truth = picture()
    y, clean = damaged(truth, 0.4, "random", pixels=True)
    estimate = truth + 0.03 * torch.randn(truth.shape, generator=generator())
    single, whole = (clean_probability(y, estimate, everything(y), per_pixel=joint) for joint in (False, True))
    assert torch.equal(whole, whole[:1].expand(whole.shape))
    wrong = [((found > 0.5) != clean).float().mean() for found in (single, whole)]
    assert wrong[1] < 0.5 * wrong[0]


def test_unobserved_entries_have_no_influence() -> None:
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


def test_partially_observed_pixels_use_observed_channels() -> None:
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
    with pytest.raises(ValueError, match="`held_out` must be equal in all channels of a pixel"):
        clean_probability(y, y, held_out, per_pixel=True)


def test_fitted_entries_do_not_bias_the_error() -> None:
    """Only held-out entries show its error; without them, clean entries with a wrong estimate would be rejected."""
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


def test_fit_recovers_the_fraction_and_the_scales() -> None:
    draw = torch.distributions.StudentT(3.0)
    torch.manual_seed(0)
    scales = torch.tensor([0.01, 0.05])
    kinds = torch.randint(0, 2, (40_000,), generator=generator())
    residual = draw.sample((40_000,)) * scales[kinds]
    hit = torch.rand(40_000, generator=generator(1)) < 0.3
    residual = torch.where(hit, 2 * torch.rand(40_000, generator=generator(2)) - 1, residual)
    zeros = torch.zeros_like(residual)
    entries = Entries(residual, kinds, zeros + math.log(0.5), zeros + MIN_LOG_DENSITY, zeros)
    begun = Mixture(torch.tensor(0.5), torch.tensor([1e-6, 1e-6]), torch.tensor([0.1, 0.1]))
    fitted = begun.refit(entries, MIN_SCALE, share_too=True)
    assert float(fitted.share) == pytest.approx(0.3, abs=0.015)
    torch.testing.assert_close(fitted.scales, scales, rtol=0.08, atol=0)
    clean = fitted.clean(entries)
    assert ((clean > 0.5) == ~hit)[residual.abs() > 0.5].float().mean() > 0.97
    assert begun.refit(entries, MIN_SCALE, share_too=False).share == begun.share
    plain = fit_mixture(residual, kinds, torch.full_like(residual, 0.5), (~hit).float(), MIN_SCALE)
    torch.testing.assert_close(plain.scales, fitted.scales, rtol=0.02, atol=0)
    assert float(plain.share) == pytest.approx(0.3, abs=0.015)


def pardons(values: Values) -> Tensor:
    return values.of(values.pardon)


def values_of(y: Tensor, estimate: Tensor, outlying: Tensor | None = None):
    """The densities of the values; without more, all far entries are outliers."""
    far = (y - estimate).abs() > 0.25
    outlying = far.float() if outlying is None else outlying
    return fit_values(Bins.of(y, estimate, 0.25), outlying, far, torch.ones_like(far))


def test_density_of_outliers_follows_their_values() -> None:
    """Also of values near which many estimates lie, so that the distance does not identify most of these outliers."""
    estimate = torch.cat([torch.full((9000,), 0.9), torch.full((1000,), 0.1)])
    estimate += 0.02 * torch.randn(10_000, generator=generator())
    y = estimate.clone()
    hit = torch.rand(10_000, generator=generator(1)) < 0.5
    y = torch.where(hit, torch.rand(10_000, generator=generator(2)).round(), y)
    density = outlier_density(y, estimate, far=0.25)
    at_zero, at_one = density[hit & (y == 0)][0], density[hit & (y == 1)][0]
    assert float(at_zero / at_one) == pytest.approx(1.0, abs=0.35)
    assert float(at_one / density[~hit].median()) > 20


def test_activity_is_high_at_edges_only() -> None:
    found = activity(picture(1))
    assert found[0, :, 23:25].min() > 3 * found[0, :, :20].max()
    assert bool((activity(torch.randn(5)) == 0).all())


def test_classes_are_of_equal_size() -> None:
    kinds = classes(torch.rand(1000, generator=generator()), [0.25, 0.5, 0.9])
    assert torch.bincount(kinds).tolist() == [250, 250, 400, 100]
    assert bool((classes(torch.zeros(10), [0.5]) == classes(torch.zeros(10), [0.5])[0]).all())


def test_fraction_of_outliers_includes_near_ones() -> None:
    estimate = torch.rand(20_000, generator=generator())
    hit = torch.rand(20_000, generator=generator(1)) < 0.4
    y = torch.where(hit, torch.rand(20_000, generator=generator(2)), estimate)
    assert float(values_of(y, estimate).share) == pytest.approx(0.4, abs=0.03)


def test_values_shared_with_clean_entries_are_pardoned() -> None:
    """White paper with a few white and black outliers; and grey paper with as many, where white is no value of it."""
    hit = torch.rand(20_000, generator=generator(1)) < 0.02
    dots = torch.rand(20_000, generator=generator(2)).round()
    paper = torch.where(torch.rand(20_000, generator=generator(3)) < 0.2, 0.5, 1.0)
    white = torch.where(hit, dots, paper)
    pardon = pardons(values_of(white, paper))
    assert pardon[white == 1].min() > 2
    assert pardon[white == 0].max() == 0
    grey = torch.where(hit, dots, 0.5)
    assert pardons(values_of(grey, torch.full_like(grey, 0.5)))[grey != 0.5].max() == 0


class TestPlaces:
    """Lines and dots on a plain."""

    @staticmethod
    def lines(side: int = 64) -> Tensor:
        image = torch.full((1, side, side), 0.9)
        image[0, 5::9] = 0.1
        image[0, :, 7::13] = 0.1
        return image

    @staticmethod
    def look(y: Tensor, estimate: Tensor, observed: Tensor | None = None):
        far = (y - estimate).abs() > 0.25
        known = everything(y) if observed is None else observed
        return far, place_evidence(y, estimate, far, activity(estimate), known, generator())

    def test_lines_are_not_outliers(self) -> None:
        y = self.lines()
        far, places = self.look(y, torch.full_like(y, 0.9))
        assert places.share < 0.02
        assert places.outlier.shape == (int(far.sum()),)
        assert places.outlier.max() < 0.1
        assert places.doubt == 1

    @pytest.mark.parametrize("share", [0.1, 0.5])
    def test_isolated_dots_are_outliers(self, share: float) -> None:
        y, _ = damaged(torch.full((1, 64, 64), 0.5), share, "salt and pepper")
        _, places = self.look(y, torch.full_like(y, 0.5))
        assert places.share > 0.9
        assert places.outlier.min() == 1
        assert places.evidence.abs().max() == 0

    def test_dots_next_to_lines_are_distinguished(self) -> None:
        y = self.lines()
        clean = y.clone()
        alone = torch.nn.functional.max_pool2d((y < 0.5).float(), 5, stride=1, padding=2)[0] == 0
        dots = alone & (torch.rand(alone.shape, generator=generator(4)) < 0.03)
        y[0, dots] = 0.0
        far, places = self.look(y, torch.full_like(y, 0.9))
        is_dot = (y != clean)[far]
        assert int(is_dot.sum()) > 20
        assert places.raw[is_dot].median() > 0.8
        assert places.raw[~is_dot].max() < 0.5
        assert places.share == pytest.approx(float(is_dot.float().mean()), abs=0.12)

    def test_unobserved_entries_are_not_neighbours(self) -> None:
        y = self.lines()
        observed = torch.rand(y.shape, generator=generator(3)) < 0.8
        estimate = torch.full_like(y, 0.9)
        far = ((y - estimate).abs() > 0.25) & observed
        one, other = (
            place_evidence(
                torch.where(observed, y, gap), estimate, far, activity(estimate), observed, generator()
            ).outlier
            for gap in (0.1, 99.0)
        )
        assert torch.equal(one, other)

    @pytest.mark.parametrize("shape", [(50,), (6, 7), (1, 2, 3, 4)])
    def test_without_neighbours_far_entries_are_outliers(self, shape: tuple[int, ...]) -> None:
        y = torch.zeros(shape)
        _, places = self.look(y, torch.ones(shape))
        assert places.outlier.min() > 0.99
        assert places.evidence.abs().max() == 0


class TestFirstLook:
    def test_conspicuous_entries_of_a_drawing_are_clean(self) -> None:
        look = first_look(TestPlaces.lines())
        assert look.share < 0.04
        assert bool((look.clean == 1).all())

    def test_uniform_image_has_no_conspicuous_entries(self) -> None:
        look = first_look(picture())
        assert look.decides
        assert bool((look.clean == 1).all())

    def test_faint_entries_are_left_to_the_network(self) -> None:
        y = picture()
        y[0, ::9, ::9] += 0.07
        look = first_look(y)
        assert not look.decides
        assert look.share == 1
        assert bool((look.clean == 1).all())

    @pytest.mark.parametrize("amount", [0.12, -0.12, 0.2])
    def test_outliers_near_their_surroundings_are_found(self, amount: float) -> None:
        y = picture(side=96) + 0.008 * torch.randn(3, 96, 96, generator=generator())
        warm = torch.rand(y.shape, generator=generator(1)) < 0.005
        y = torch.where(warm, y + amount, y)
        look = first_look(y)
        assert not look.decides
        assert look.distance < abs(amount)
        assert float((look.clean[warm] < 0.5).float().mean()) > 0.9
        assert float((look.clean[~warm] < 0.5).float().mean()) < 1e-3
        clean = first_support(y, distance=look.distance, median=look.median).clean
        assert float((clean[warm] < 0.5).float().mean()) > 0.9
        assert float((clean[~warm] < 0.5).float().mean()) < 1e-3

    def test_far_outliers_beside_near_ones_are_found(self) -> None:
        y = picture(side=96) + 0.008 * torch.randn(3, 96, 96, generator=generator())
        draw = torch.rand(y.shape, generator=generator(1))
        warm, white = draw < 0.01, draw > 0.998
        look = first_look(torch.where(white, 1.0, torch.where(warm, y + 0.12, y)))
        assert look.distance < 0.12
        assert float((look.clean[white] < 0.5).float().mean()) > 0.9
        assert float((look.clean[warm] < 0.5).float().mean()) > 0.9

    @pytest.mark.parametrize("amount", [0.5, 0.2])
    def test_the_distance_is_reduced_only_for_outliers_near_their_surroundings(self, amount: float) -> None:
        y = picture(side=96) + 0.008 * torch.randn(3, 96, 96, generator=generator())
        warm = torch.rand(y.shape, generator=generator(1)) < 0.005
        assert (first_look(torch.where(warm, y + amount, y)).distance == FAR_DISTANCE) is (amount == 0.5)

    @pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
    @pytest.mark.parametrize("part", ["everywhere", "half", "clipped"])
    def test_noise_does_not_reduce_the_distance(self, noise: float, part: str) -> None:
        grain = noise * torch.randn(1, 192, 192, generator=generator())
        y = torch.full_like(grain, 0.5)
        if part == "half":
            grain[:, :, 96:] = 0
        elif part == "clipped":  # three quarters are black, where only positive noise remains
            y[:, :, 48:] = 0
        look = first_look((y + grain).clamp(0, 1))
        assert look.distance == FAR_DISTANCE
        assert bool((look.clean == 1).all()) or noise == 0.1  # where noise is beyond the usual distance

    @pytest.mark.parametrize("values", ["salt and pepper", "random"])
    def test_damage_is_conspicuous(self, values: str) -> None:
        y, clean = damaged(picture(), 0.3, values)
        look = first_look(y)
        assert look.share > 0.8
        assert look.clean[clean].mean() > 0.97

    def test_a_mask_and_whole_pixels(self) -> None:
        truth = picture()
        y, _ = damaged(truth, 0.1, "random", pixels=True)
        observed = torch.rand(truth.shape, generator=generator(7)) < 0.7
        look = first_look(torch.where(observed, y, 77.0), observed=observed, per_pixel=True)
        assert bool((look.clean[~observed] == 0).all())
        seen = observed.all(dim=0)
        assert torch.equal(look.clean[0][seen], look.clean[2][seen])
        assert bool((first_look(y, observed=~everything(y)).clean == 0).all())

    def test_units_do_not_matter(self) -> None:
        y, _ = damaged(picture(), 0.1, "random")
        one, other = first_look(y), first_look(1000 * y, scale=1000.0)
        assert ((one.clean > 0.5) == (other.clean > 0.5)).float().mean() > 0.999

    def test_row_is_not_an_image(self) -> None:
        assert first_look(torch.rand(30)).share == 1


@pytest.mark.parametrize("sigma", [0.0, 0.03, 0.1])
def test_dense_noise_is_estimated_in_flat_parts(sigma: float) -> None:
    truth = picture(side=96)
    y, clean = damaged(truth, 0.3, "random")
    y = torch.where(clean, y + sigma * torch.randn(y.shape, generator=generator(9)), y)
    found = dense_noise(y, truth, clean.float(), torch.rand(y.shape, generator=generator(8)) < 0.2)
    assert found == pytest.approx(sigma, rel=0.1, abs=1e-6)


def test_dense_noise_without_entries_is_zero() -> None:
    y = picture()
    assert dense_noise(y, y, torch.ones_like(y), ~everything(y)) == 0


def thin_lines(share: float, random: float) -> tuple[torch.Tensor, ...]:
    """Lines that the estimate misses, under impulses: observation, estimate, and which are lines or random values."""
    generator = torch.Generator().manual_seed(0)
    truth = 0.4 + 0.02 * torch.rand(3, 64, 64, generator=generator)
    estimate = truth.clone()
    truth[:, ::16] = 0.8 + 0.02 * torch.rand(3, 4, 64, generator=generator)
    truth[:, 1:4, 5:8] = estimate[:, 1:4, 5:8]
    few = torch.rand(truth.shape, generator=generator)
    lines = (truth - estimate).abs() > 0.3
    lines &= torch.rand(truth.shape, generator=generator) < 0.15
    truth = torch.where(lines, truth, estimate)
    impulse = few < share
    y = torch.where(impulse, torch.where(few < share / 2, 0.0, 1.0), truth)
    other = (few > 1 - random) & ~lines
    y = torch.where(other, torch.rand(truth.shape, generator=generator), y)
    return y, estimate, lines & ~impulse, other & ((y - estimate).abs() > 0.3), impulse


def test_under_impulses_of_two_values_lines_that_the_estimate_misses_are_clean() -> None:
    y, estimate, lines, _, impulse = thin_lines(0.5, 0.0)
    clean = clean_probability(y, estimate, torch.ones_like(y, dtype=torch.bool))
    assert int(lines.sum()) > 30
    assert float((clean[lines] > 0.5).float().mean()) > 0.6
    assert float(clean[impulse].max()) < 0.5


def test_random_values_beside_impulses_are_outliers() -> None:
    y, estimate, _, other, impulse = thin_lines(0.5, 0.1)
    clean = clean_probability(y, estimate, torch.ones_like(y, dtype=torch.bool))
    assert float((clean[other] < 0.5).float().mean()) > 0.9
    assert float(clean[impulse].max()) < 0.5


def test_sampled_values_are_those_of_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of few outliers, whose entries are all counted, and of pixels whose channels are consecutive."""
    estimate = torch.rand(30_000, generator=generator())
    y = (estimate + 0.01 * torch.randn(30_000, generator=generator(1))).clamp(0, 1)
    y[:18] = torch.tensor([0.0, 1.0, 0.5]).repeat(6)
    estimate[:18] = torch.tensor([0.9, 0.2, 0.9]).repeat(6)
    every = values_of(y, estimate)
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.values.MAX_COUNTED", 6000)
    some = values_of(y, estimate)
    assert float(some.share) == pytest.approx(float(every.share), rel=0.15)
    torch.testing.assert_close(some.of(some.outliers)[:18], every.of(every.outliers)[:18], rtol=0.3, atol=0)


@pytest.mark.parametrize("joint", [False, True])
def test_probability_does_not_depend_on_chunks(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = picture(3)
    y, _ = damaged(truth, 0.2, "random")
    observed = torch.rand(truth.shape, generator=generator(5)) > 0.1
    arguments = (y, truth + 0.02 * torch.randn(truth.shape, generator=generator()), everything(y), 1.0, observed, joint)
    whole = clean_probability(*arguments)
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.mixture.CHUNK", 100)
    torch.testing.assert_close(clean_probability(*arguments), whole, rtol=0, atol=1e-6)


def test_places_of_a_sample_are_those_of_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    y = TestPlaces.lines(128)
    hit = torch.rand(y.shape, generator=generator(3)) < 0.05
    y[hit] = 0.1
    far, every = TestPlaces.look(y, torch.full_like(y, 0.9))
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.places.MAX_COMPARED", 2000)
    _, some = TestPlaces.look(y, torch.full_like(y, 0.9))
    assert some.raw.shape == every.raw.shape == (int(far.sum()),)
    assert float((some.raw - every.raw).abs().mean()) < 0.1
    assert some.share == pytest.approx(every.share, abs=0.1)


def test_places_count_as_outliers_without_evidence() -> None:
    y = torch.full((1, 64, 64), 0.9)
    y[torch.rand(y.shape, generator=generator(3)) < 0.3] = 0.1
    far, places = TestPlaces.look(y, torch.full_like(y, 0.9))
    assert places.doubt == 0
    assert torch.equal(places.outlier, torch.ones(int(far.sum())))
    assert torch.equal(places.evidence, torch.zeros(int(far.sum())))


@pytest.mark.parametrize(("held", "most"), [(0, 1.0), (10, 1.01), (30, 2.0)])
def test_fraction_of_few_outliers_hardly_depends_on_chance(held: int, most: float) -> None:
    """10 outliers are expected among 2000 held-out entries."""
    outlying, apart = torch.zeros(20_000), torch.zeros(20_000, dtype=torch.bool)
    outlying[:100] = 1
    apart[100 - held : 2100 - held] = True
    nothing = torch.zeros(1)
    values = Values(nothing, torch.tensor(0.005), nothing, nothing, nothing, nothing)
    fraction = float(_outlier_fraction(values, outlying, apart)) / 0.005
    assert most / 2 < fraction <= most
