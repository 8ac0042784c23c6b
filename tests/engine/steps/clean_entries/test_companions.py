"""What companions say: residuals that neighbours share are errors of the estimate, others are outliers."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from dop_lightning.engine.steps.clean_entries import Companions, clean_probability, first_support
from dop_lightning.engine.steps.clean_entries.activity import activity

SIDE = 64


def blurred() -> tuple[Tensor, Tensor]:
    """A picture of cells of random colours, and an estimate that has blurred their edges."""
    generator = torch.Generator().manual_seed(0)
    places = SIDE * torch.rand(40, 2, generator=generator)
    colours = torch.rand(40, 3, generator=generator)
    at = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).float()
    truth = colours[torch.cdist(at, places).argmin(1)].T.reshape(3, SIDE, SIDE)
    padded = pad(truth[None], [2] * 4, mode="replicate")
    return truth, avg_pool2d(padded, 5, stride=1)[0] + 0.01 * torch.randn(truth.shape, generator=generator)


def random_values(truth: Tensor, share: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hit = torch.rand(truth.shape, generator=generator) < share
    return torch.where(hit, torch.rand(truth.shape, generator=generator), truth), hit


def companions(y: Tensor, estimate: Tensor, joint: bool = False) -> Companions:
    everywhere = torch.ones_like(y, dtype=torch.bool)
    return Companions(y, estimate, 0.08, activity(estimate), everywhere, joint, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.2])
def test_errors_of_an_estimate_are_distinguished_from_outliers(share: float, joint: bool) -> None:
    truth, estimate = blurred()
    y, hit = random_values(truth, share)
    found = companions(y, estimate, joint)
    said = found.evidence(hit.float(), torch.ones_like(y))
    assert bool((said[~found.away] == 0).all())
    wrong, outliers = said[found.away & ~hit], said[found.away & hit]
    assert len(wrong) > 1000
    order = torch.sign(outliers[None] - wrong[:, None]).mean()
    assert order > 0.4, "Somers' D: how much more often it speaks against an outlier than against an error"
    assert wrong.mean() < -0.3
    assert outliers.mean() > 0.2


def test_only_single_values_are_evaluated() -> None:
    truth, estimate = blurred()
    y, _ = random_values(truth, 0.3)
    said = companions(y, estimate).evidence(0.9 * torch.ones_like(y), torch.zeros_like(y))
    assert bool((said == 0).all())


def test_image_without_residuals_gives_no_evidence() -> None:
    y = torch.full((3, 8, 8), 0.5)
    assert bool((companions(y, y).evidence(torch.ones_like(y), torch.ones_like(y)) == 0).all())


def test_blurred_edges_stay_clean_among_random_values() -> None:
    truth, estimate = blurred()
    y, hit = random_values(truth, 0.3)
    found = clean_probability(y, estimate, torch.ones_like(hit)) > 0.5
    away = (y - estimate).abs() > 0.2
    assert found[away & ~hit].float().mean() > 0.6
    assert found[away & hit].float().mean() < 0.05


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_calibration_improves_detection_of_random_values(share: float) -> None:
    truth, estimate = blurred()
    y, hit = random_values(truth, share)
    scores = []
    for calibrated in (False, True):
        clean = clean_probability(y, estimate, torch.ones_like(hit), calibrated=calibrated)
        assert bool(((clean >= 0) & (clean <= 1)).all())
        scores.append(float((clean - (~hit).float()).square().mean()))
    assert scores[1] < 0.95 * scores[0]


def test_calibration_is_not_used_for_outliers_of_few_values() -> None:
    truth, estimate = blurred()
    generator = torch.Generator().manual_seed(2)
    hit = torch.rand(truth.shape, generator=generator) < 0.3
    y = torch.where(hit, torch.rand(truth.shape, generator=generator).round(), truth)
    one, two = (clean_probability(y, estimate, torch.ones_like(hit), calibrated=told) for told in (False, True))
    assert torch.equal(one, two)


def test_channel_order_has_no_effect_without_neighbours() -> None:
    y = torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(0))
    assert companions(y, torch.zeros_like(y)).evidence(torch.ones_like(y), torch.ones_like(y)).isfinite().all()


@pytest.mark.parametrize("joint", [False, True])
def test_first_support_needs_no_network(joint: bool) -> None:
    truth, _ = blurred()
    generator = torch.Generator().manual_seed(2)
    hit = (torch.rand((1, SIDE, SIDE) if joint else truth.shape, generator=generator) < 0.3).expand(truth.shape)
    y = torch.where(hit, torch.rand(truth.shape, generator=generator).round(), truth)
    found = first_support(y, per="pixel" if joint else "entry").clean > 0.5
    assert (found == ~hit).float().mean() > 0.85


def test_unobserved_values_do_not_affect_the_support() -> None:
    truth, _ = blurred()
    y, _ = random_values(truth, 0.3)
    observed = torch.rand(y.shape, generator=torch.Generator().manual_seed(3)) < 0.9
    other = torch.where(observed, y, 0.123)
    one, two = first_support(y, observed=observed).clean, first_support(other, observed=observed).clean
    assert torch.equal(one, two)
    assert bool((one[~observed] == 0).all())
