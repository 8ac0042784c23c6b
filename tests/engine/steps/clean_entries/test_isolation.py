"""Evidence from isolation: large residuals in groups are errors of the estimate, single ones are outliers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import clean_probability, first_look
from dop_lightning.engine.steps.clean_entries.activity import activity
from dop_lightning.engine.steps.clean_entries.isolation import isolation_evidence

DATA = Path(__file__).parents[4] / "data"
SIDE = 96


def highlights(channels: int = 3) -> tuple[Tensor, Tensor]:
    """Return bright spots of 2×3 pixels on grey noise, and an estimate without them."""
    generator = torch.Generator().manual_seed(0)
    estimate = torch.full((channels, SIDE, SIDE), 0.4)
    truth = estimate + 0.01 * torch.randn(estimate.shape, generator=generator)
    for top, left in torch.randint(2, SIDE - 4, (60, 2), generator=generator).tolist():
        truth[:, top : top + 2, left : left + 3] += 0.3
    return truth, estimate


def hot(truth: Tensor, fraction: float, whole: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hit = torch.rand(truth[:1].shape if whole else truth.shape, generator=generator) < fraction
    hit = hit.expand(truth.shape)
    return torch.where(hit, 0.7 + 0.3 * torch.rand(truth.shape, generator=generator), truth), hit


def evidence(y: Tensor, estimate: Tensor, observed: Tensor | None = None) -> Tensor:
    seen = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    generator = torch.Generator().manual_seed(2)
    return isolation_evidence(y, estimate, 0.08, activity(estimate), seen, generator)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_groups_are_clean_and_isolated_entries_are_outliers(channels: int, whole: bool) -> None:
    truth, estimate = highlights(channels)
    y, hit = hot(truth, 0.01, whole=whole)
    found = evidence(y, estimate)
    group = (truth > 0.6) & ~hit
    assert bool((found[(y - estimate).abs() <= 0.08] == 0).all())
    assert found[group].mean() < -1
    assert found[hit & (truth < 0.6)].mean() > 0


def test_many_outliers_weaken_the_evidence() -> None:
    truth, estimate = highlights()
    sizes = []
    for fraction in (0.01, 0.3):
        y, hit = hot(truth, fraction)
        found = evidence(y, estimate)
        sizes.append(float(found[hit].mean() - found[(truth > 0.6) & ~hit].mean()))
    assert 0 < sizes[1] < sizes[0]


@pytest.mark.parametrize(("fraction", "whole"), [(0.05, False), (0.002, True), (0.02, True)])
def test_outliers_alone_are_all_kept(fraction: float, whole: bool) -> None:
    """Without clean entries away from their estimate, the fraction is 1, and chance must not count as evidence."""
    estimate = torch.full((3, SIDE, SIDE), 0.4)
    y, hit = hot(estimate, fraction, whole)
    found = evidence(y, estimate)[hit]
    assert found.mean() > -0.2
    assert (found < -1).float().mean() < 0.05


def test_unobserved_entries_do_not_count() -> None:
    truth, estimate = highlights()
    y, hit = hot(truth, 0.01)
    seen = torch.rand(y.shape, generator=torch.Generator().manual_seed(3)) < 0.9
    found = evidence(y, estimate, observed=seen)
    assert torch.equal(found, evidence(torch.where(seen, y, torch.nan), estimate, observed=seen))
    assert bool((found[~seen] == 0).all())
    assert found[hit & seen].mean() > found[(truth > 0.6) & ~hit & seen].mean() + 1


def test_an_image_without_residuals_has_no_evidence() -> None:
    y = torch.full((3, 8, 8), 0.5)
    assert bool((evidence(y, y) == 0).all())


def test_no_random_place_may_be_far_from_its_estimate() -> None:
    y = torch.zeros(1, 8, 8)
    y[0, 3, 3] = 1.0
    assert bool(evidence(y, y.roll(1)).isfinite().all())


def test_highlights_that_the_estimate_misses_stay_clean() -> None:
    """Their values differ from each other, so only the sizes of the residuals show that they belong together."""
    truth, estimate = highlights()
    generator = torch.Generator().manual_seed(4)
    truth = torch.where(truth > 0.6, 0.6 + 0.4 * torch.rand(truth.shape, generator=generator), truth)
    y, hit = hot(truth, 0.01)
    clean = clean_probability(y, estimate, torch.ones_like(y, dtype=torch.bool))
    assert ((clean < 0.5) & ~hit).sum() < 0.2 * (truth > 0.6).sum()
    assert (clean[hit & (truth < 0.6)] < 0.5).float().mean() > 0.93


def test_second_look_finds_few_outliers_in_a_picture_that_stands_out() -> None:
    """At its edges, the photograph differs from the median more often than at the hot pixels."""
    truth = torch.from_numpy(np.array(Image.open(DATA / "coffee.png"))).permute(2, 0, 1) / 255
    undamaged = first_look(truth)
    assert undamaged.decides
    assert bool((undamaged.clean == 1).all())
    y, hit = hot(truth, 0.001)
    found = first_look(y)
    far = hit & ((y - truth) > 0.5)
    assert not found.decides
    assert ((found.clean < 0.5) & far).sum() > 0.9 * far.sum()
    assert ((found.clean < 0.5) & ~hit).sum() <= 3
