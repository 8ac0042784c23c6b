"""Frames that noise limits: how much noise there is, and which entries no optics can have made."""

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import (
    Sign,
    background_noise,
    clean_probability,
    filled,
    first_look,
    sharp_outliers,
)
from dop_lightning.engine.steps.clean_entries.medians import opposite_median, window_median, window_median_at
from tests.engine.steps.clean_entries.frames import READ_OUT, generator, star_field, with_hits


def everything(y: Tensor) -> Tensor:
    return torch.ones_like(y, dtype=torch.bool)


def precision_and_recall(found: Tensor, truth: Tensor) -> tuple[float, float]:
    right = float((found & truth).sum())
    return right / max(1.0, float(found.sum())), right / float(truth.sum())


class TestNoise:
    def test_sky_noise_is_robust_to_stars_and_hits(self) -> None:
        _, frame = star_field()
        y, _ = with_hits(frame, 0.01, 1000, 30_000)
        expected = (200 + READ_OUT**2) ** 0.5
        for each in (frame, y):
            noise = background_noise(each, everything(each))
            assert noise is not None
            assert noise == pytest.approx(expected, rel=0.12)

    def test_units_do_not_matter(self) -> None:
        _, frame = star_field()
        one, other = (background_noise(a * frame + b, everything(frame)) for a, b in ((1.0, 0.0), (1e-3, 5.0)))
        assert one is not None
        assert other == pytest.approx(1e-3 * one, rel=1e-3)

    def test_few_photons_are_not_outliers(self) -> None:
        y = torch.poisson(torch.full((1, 128, 128), 0.2), generator=generator(0))
        noise = background_noise(y, everything(y), step=1.0)
        assert noise == 1
        assert float(sharp_outliers(y, everything(y), noise).sum()) <= 1

    def test_pictures_are_not_limited_by_noise(self) -> None:
        data = pytest.importorskip("skimage.data")
        for picture in (data.camera(), data.coins(), data.brick(), data.page()):
            y = torch.from_numpy(picture[:160, :160]).float()[None]
            assert background_noise(y, everything(y)) is None
            assert background_noise(200 * y + 7, everything(y), step=1.0) is None

    def test_without_any_noise(self) -> None:
        assert background_noise(torch.ones(1, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)) is None


class TestSharpOutliers:
    def test_hits_are_found_and_stars_are_not(self) -> None:
        _, frame = star_field(brightest=3000)
        y, hit = with_hits(frame, 0.01, 500, 30_000)
        found = sharp_outliers(y, everything(y), noise=17.0)
        assert precision_and_recall(found, hit) >= (0.99, 0.95)
        assert not sharp_outliers(frame, everything(frame), noise=17.0).any()

    def test_tracks_of_particles(self) -> None:
        _, y = star_field(stars=0)
        track = torch.zeros_like(y, dtype=torch.bool)
        for k in range(9):
            track[0, 20 + k, 30 + k // 2] = track[0, 60, 10 + k] = track[0, 40, 70] = True
        y = torch.where(track, y + 800, y)
        assert torch.equal(sharp_outliers(y, everything(y), noise=17.0), track)

    @pytest.mark.parametrize(
        ("sign", "high", "low"),
        [("both", True, True), ("positive", True, False), ("negative", False, True), ("auto", True, True)],
    )
    def test_signs(self, sign: Sign, high: bool, low: bool) -> None:
        _, y = star_field(stars=0, sky=2000)
        y[0, 10::20, 10::20] += 4000
        y[0, 20::20, 20::20] -= 1000
        found = sharp_outliers(y, everything(y), noise=45.0, sign=sign)
        assert bool(found[0, 10::20, 10::20].all()) is high
        assert bool(found[0, 20::20, 20::20].all()) is low

    def test_few_outliers_of_the_other_sign_are_noise(self) -> None:
        _, frame = star_field(stars=0, sky=2000)
        y, hit = with_hits(frame, 0.01, 3000, 9000)
        y[0, 50, 50] -= 1000
        hit[0, 50, 50] = False
        assert torch.equal(sharp_outliers(y, everything(y), noise=45.0), hit)
        assert sharp_outliers(y, everything(y), noise=45.0, sign="both")[0, 50, 50]

    def test_unobserved_entries_have_no_influence(self) -> None:
        _, frame = star_field()
        y, hit = with_hits(frame, 0.01, 500, 30_000)
        known = torch.rand(y.shape, generator=generator(3)) < 0.8
        found = sharp_outliers(torch.where(known, y, 1e6), known, noise=17.0)
        assert not found[~known].any()
        assert precision_and_recall(found[known], hit[known]) >= (0.99, 0.95)

    def test_an_unknown_sign_is_refused(self) -> None:
        y = torch.zeros(1, 8, 8)
        with pytest.raises(ValueError, match="sign must be one of"):
            sharp_outliers(y, everything(y), 1.0, "up")  # type: ignore[arg-type]


class TestInTheLook:
    def test_noise_decides_in_scientific_frames(self) -> None:
        _, frame = star_field()
        y, _ = with_hits(frame, 0.01, 1000, 30_000)
        look = first_look(y, scale=30_000.0, noise=17.0)
        assert look.decides
        assert torch.equal(look.clean < 0.5, sharp_outliers(y, everything(y), 17.0))
        assert not first_look(y, scale=30_000.0).by_noise

    def test_whole_pixels(self) -> None:
        _, frame = star_field()
        y = frame.repeat(3, 1, 1)
        y[1, 30, 40] += 2000
        look = first_look(y, scale=2000.0, noise=17.0, per_pixel=True)
        assert bool((look.clean[:, 30, 40] == 0).all())
        assert float(look.clean.sum()) == y.numel() - 3

    def test_dense_damage_is_left_to_the_network(self) -> None:
        _, frame = star_field()
        y, _ = with_hits(frame, 0.2, 5000, 30_000)
        assert not first_look(y, scale=30_000.0, noise=17.0).by_noise


def test_mixture_uses_the_sign() -> None:
    estimate = torch.full((1, 64, 64), 0.5)
    y = estimate + 0.01 * torch.randn(1, 64, 64, generator=generator(0))
    y[0, ::8, ::8], y[0, 4::8, 4::8] = 1.0, 0.0
    everywhere = everything(y)
    high = clean_probability(y, estimate, everywhere, sign="positive")[0]
    low = clean_probability(y, estimate, everywhere, sign="negative")[0]
    assert bool((high[::8, ::8] < 0.01).all())
    assert bool((high[4::8, 4::8] == 1).all())
    assert bool((low[4::8, 4::8] < 0.01).all())
    assert bool((low[::8, ::8] == 1).all())


class TestMedians:
    def test_subset_of_entries_equals_all(self) -> None:
        y = torch.rand(2, 20, 30, generator=generator(0))
        known = torch.rand(y.shape, generator=generator(1)) < 0.7
        at = torch.rand(y.shape, generator=generator(2)) < 0.3
        expected = window_median(y, known, 7)
        found = window_median_at(y, known, 7, at)
        assert torch.equal(found[at], expected[at])
        assert torch.equal(found[~at], y[~at])

    def test_opposite_neighbours_follow_a_slope(self) -> None:
        rows = torch.arange(20.0)
        y = (3 * rows[:, None] + 2 * rows)[None]
        y[0, 10, 10] = 1e3
        middle = opposite_median(y, everything(y))[0]
        slope = 3 * rows[:, None] + 2 * rows
        inside = torch.ones(20, 20, dtype=torch.bool)
        inside[[0, -1]] = inside[:, [0, -1]] = False
        assert torch.allclose(middle[10, 10], slope[10, 10])
        assert float((middle - slope)[inside].abs().max()) <= 2.5

    def test_gaps(self) -> None:
        y = torch.rand(1, 9, 9, generator=generator(0))
        known = torch.zeros_like(y, dtype=torch.bool)
        known[0, 4, 4] = True
        assert torch.equal(opposite_median(y, known), y)
        known[0, 4, 3] = known[0, 4, 5] = True
        assert opposite_median(y, known)[0, 4, 4] == (y[0, 4, 3] + y[0, 4, 5]) / 2


def test_flat_region_is_filled_by_its_mean_and_a_star_by_the_estimate() -> None:
    truth, y = star_field(stars=0)
    clean = torch.rand(y.shape, generator=generator(4)) > 0.02
    star = torch.zeros_like(y)
    star[0, 40:56, 40:56] = 3000 * torch.rand(16, 16, generator=generator(5))
    overfitted = y + star
    expected = truth + star
    found = filled(torch.where(clean, y + star, 9e4), torch.where(clean, overfitted, expected + 15), clean, noise=17.0)
    away = ~clean
    away[0, 30:66, 30:66] = False
    assert float((found - truth)[away].square().mean().sqrt()) < 4  # of 17 / sqrt(50), and the edge
    inside = ~clean
    inside[0, :44] = inside[0, 52:] = inside[0, :, :44] = inside[0, :, 52:] = False
    assert inside.any()
    assert float((found - expected)[inside].abs().max()) < 60
    assert torch.equal(found[clean], overfitted[clean])
