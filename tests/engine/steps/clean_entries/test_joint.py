"""Pixels that are corrupted as a whole are detected, and their channels are compared without their correlation."""

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import clean_probability, first_support
from dop_lightning.engine.steps.clean_entries.decorrelation import MAX_PATTERNS, Decorrelation
from dop_lightning.engine.steps.clean_entries.joint import are_joint
from dop_lightning.problems.noise import RandomValuedImpulse, SaltAndPepper

SIDE = 64


def picture() -> Tensor:
    """A picture of soft grey shapes, slightly coloured."""
    rows, columns = torch.meshgrid(torch.linspace(0, 6, SIDE), torch.linspace(0, 6, SIDE), indexing="ij")
    grey = 0.5 + 0.25 * torch.sin(rows**2 / 2) * torch.cos(columns + rows)
    return torch.stack([grey, 0.9 * grey, 0.1 + 0.8 * grey])


def corrupted(noise: RandomValuedImpulse | SaltAndPepper) -> tuple[Tensor, Tensor]:
    truth = picture()
    y = noise.corrupt(truth, torch.Generator().manual_seed(0)).observation
    return y, y != truth


def correlated(number: int = 2000) -> Tensor:
    """Residuals ``(N, 3)`` that are similar in all channels."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(number, 1, generator=generator) + 0.01 * torch.randn(number, 3, generator=generator)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("per", ["entry", "pixel"])
def test_whole_pixels_of_random_values_are_detected(share: float, per: str) -> None:
    y, _ = corrupted(RandomValuedImpulse(share, per=per))
    assert first_support(y).joint == (per == "pixel")


def test_outliers_of_few_values_are_found_for_each_entry() -> None:
    y, hit = corrupted(SaltAndPepper(0.3, per="pixel"))
    found = first_support(y)
    assert not found.joint
    assert ((found.clean < 0.5) == hit).float().mean() > 0.99


def test_the_setting_overrides_the_detection() -> None:
    y, _ = corrupted(RandomValuedImpulse(0.3, per="pixel"))
    assert not first_support(y, per="entry").joint
    assert first_support(corrupted(RandomValuedImpulse(0.3))[0], per="pixel").joint


def test_whole_pixels_are_found_better_together() -> None:
    y, hit = corrupted(RandomValuedImpulse(0.3, per="pixel"))
    wrong = {
        per: float(((first_support(y, per=per).clean < 0.5) != hit.any(dim=0)).float().mean())
        for per in ("entry", "auto")
    }
    assert wrong["auto"] < 0.5 * wrong["entry"]


def test_unobserved_pixels_are_ignored() -> None:
    clean = (torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5).float().repeat(3, 1, 1)
    observed = torch.ones_like(clean, dtype=torch.bool)
    observed[0, :8] = False
    other = clean.clone()
    other[1:, :8] = 1 - clean[1:, :8]
    assert are_joint(clean, observed)
    assert are_joint(other, observed)
    assert not are_joint(clean, torch.zeros_like(observed))
    assert not are_joint(torch.ones_like(clean))


def test_decorrelated_residuals_keep_their_density() -> None:
    residual = correlated()
    turn = Decorrelation.of(residual, torch.ones(len(residual)), 1e-4)
    z, volume = turn.turned(residual, torch.ones_like(residual, dtype=torch.bool))
    assert bool((volume == 0).all())
    assert torch.allclose(torch.corrcoef(z.T), torch.eye(3), atol=0.1)
    assert torch.allclose(torch.logdet(torch.cov(z.T)), torch.logdet(torch.cov(residual.T)), atol=1e-3)


def test_pixels_with_unobserved_channels_use_the_covariance_of_the_others() -> None:
    residual = correlated()
    turn = Decorrelation.of(residual, torch.ones(len(residual)), 1e-4)
    seen = torch.tensor([True, False, True]).expand(residual.shape).clone()
    z, volume = turn.turned(residual, seen)
    assert torch.equal(z[:, 1], residual[:, 1])
    pair, part = z[:, [0, 2]], residual[:, [0, 2]]
    assert abs(float(torch.corrcoef(pair.T)[0, 1])) < 0.1
    log_ratio = (torch.logdet(torch.cov(pair.T)) - torch.logdet(torch.cov(part.T))) / 2
    assert float(volume[0]) == pytest.approx(float(log_ratio), abs=1e-3)


def test_an_outlier_in_colour_is_not_hidden_by_errors_in_grey() -> None:
    residual = torch.cat([correlated(), torch.tensor([[0.1, -0.1, 0.05]])])
    everywhere = torch.ones_like(residual, dtype=torch.bool)
    z, _ = Decorrelation.of(residual, torch.ones(len(residual)), 1e-4).turned(residual, everywhere)
    assert float(z[-1].norm()) > float(z[:-1].norm(dim=1).max())
    assert float(residual[-1].norm()) < float(residual[:-1].norm(dim=1).max())


def test_too_many_patterns_stay_unchanged() -> None:
    channels = 9
    residual = correlated().repeat(1, 3)
    seen = torch.rand(residual.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    seen[0] = True
    assert len(seen.unique(dim=0)) > MAX_PATTERNS
    z, volume = Decorrelation.of(residual, seen.all(dim=1).float(), 1e-2).turned(residual, seen)
    assert z.shape == (len(residual), channels)
    incomplete = ~seen.all(dim=1)
    assert torch.equal(z[incomplete], residual[incomplete])
    assert bool((volume == 0).all())


@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_a_grey_image_has_a_covariance_of_full_rank(clean: float) -> None:
    residual = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).expand(100, 3)
    turn = Decorrelation.of(residual, torch.full((100,), clean), 1e-3)
    assert turn.turned(residual, torch.ones_like(residual, dtype=torch.bool))[0].isfinite().all()


def test_unobserved_channels_do_not_decide() -> None:
    y, _ = corrupted(RandomValuedImpulse(0.3, per="pixel"))
    estimate = picture() + 0.01
    observed = torch.rand(y.shape, generator=torch.Generator().manual_seed(3)) < 0.9
    held_out = torch.ones_like(observed)
    one, two = (
        clean_probability(values, estimate, held_out, observed=observed, per_pixel=True)
        for values in (y, torch.where(observed, y, 0.3))
    )
    assert torch.equal(one, two)
    assert bool((one[~observed] == 0).all())
