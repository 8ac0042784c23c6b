"""Kriging of residuals."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries import krige, kriged
from dop_lightning.engine.steps.clean_entries.kriging import NEIGHBOURS, NUGGET
from dop_lightning.foundation.native import library


def shared_noise(channels: int, side: int = 48) -> torch.Tensor:
    """Noise that the channels of a pixel have in common."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, side, side, generator=generator)
    return 0.1 * (common + 0.2 * torch.randn(channels, side, side, generator=generator))


def drawn(like: torch.Tensor, share: float) -> torch.Tensor:
    return (torch.rand(like.shape, generator=torch.Generator().manual_seed(1)) < share).to(like)


def test_solves_the_documented_system() -> None:
    residual = shared_noise(1).double()
    clean = drawn(residual, 0.7)
    known = torch.nn.functional.pad(residual * clean, [2] * 4)[0].unfold(0, 5, 1).unfold(1, 5, 1).reshape(-1, 25)
    weights = torch.nn.functional.pad(clean, [2] * 4)[0].unfold(0, 5, 1).unfold(1, 5, 1).reshape(-1, 25)
    products, pairs = (each.mT @ each for each in (known, weights))
    moments = (products + products.flip(0, 1)) / (pairs + pairs.flip(0, 1))  # turned by 180°
    moments += NUGGET * torch.diag(moments.diagonal())
    at = 20 * 48 + 20
    present = [i for i in torch.nonzero(weights[at]).flatten().tolist() if i != 12]
    near = sorted(present, key=lambda i: -abs(float(moments[12, i])))[:NEIGHBOURS]
    expected = torch.linalg.solve(moments[near][:, near], moments[near, 12]) @ known[at, near]
    torch.testing.assert_close(krige(residual, clean)[0, 20, 20], expected)


@pytest.mark.skipif(library() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernel_agrees_with_plain_operations(channels: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    residual = shared_noise(channels)
    clean = drawn(residual, 0.6) * torch.rand(residual.shape, generator=torch.Generator().manual_seed(2)).sqrt()
    kinds = torch.arange(48 * 48).view(48, 48) % 3
    compiled = krige(residual, clean, clean < 0.5, kinds)
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.kriging.kernels_for", lambda *_: None)
    torch.testing.assert_close(krige(residual, clean, clean < 0.5, kinds), compiled, rtol=1e-3, atol=1e-4)


def test_classes_have_separate_covariances() -> None:
    rows = shared_noise(1, 96)[:, :, :1].expand(1, 96, 96)  # the left half: lines from left to right
    residual = torch.cat([rows, rows.mT], dim=2)
    clean = drawn(residual, 0.5)
    kinds = torch.cat([torch.zeros(96, 96), torch.ones(96, 96)], dim=1).long()
    missing = clean == 0
    found = [krige(residual, clean, missing, each) for each in (None, kinds)]
    one, two = (float((each - residual)[missing].abs().mean()) for each in found)
    assert two < 0.75 * one


def test_prediction_excludes_the_entry_itself() -> None:
    residual = shared_noise(3)
    clean = torch.ones_like(residual)
    clean[0, 10, 10] = 0
    changed = residual.clone()
    changed[0, 10, 10] = torch.nan
    assert torch.equal(krige(residual, clean), krige(changed, clean))


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_missing_entries_follow_their_neighbours(channels: int) -> None:
    residual = shared_noise(channels)
    if channels == 1:  # smooth instead: there is no other channel
        residual = torch.nn.functional.avg_pool2d(residual, 5, 1, 2)
    clean = drawn(residual, 0.7)
    missing = clean == 0
    error = (residual - krige(residual, clean))[missing].square().mean()
    assert error < 0.5 * residual[missing].square().mean()


def test_predicts_requested_entries_only() -> None:
    residual = shared_noise(3)
    clean = drawn(residual, 0.5)
    at = clean == 0
    everywhere, there = krige(residual, clean), krige(residual, clean, at)
    torch.testing.assert_close(there[at], everywhere[at])
    assert not bool(there[~at].any())


def test_strips_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    residual = shared_noise(3).double()
    clean = drawn(residual, 0.5)
    whole = krige(residual, clean)
    monkeypatch.setattr("dop_lightning.engine.steps.clean_entries.kriging.STRIP", 3 * 48 * 7)
    torch.testing.assert_close(krige(residual, clean), whole)


def test_white_noise_is_not_predicted() -> None:
    residual = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert float(krige(residual, torch.ones_like(residual)).square().mean()) < 0.02


@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_prediction_is_0_without_clean_entries_or_residuals(clean: float) -> None:
    residual = torch.zeros(3, 12, 12) if clean else torch.ones(3, 12, 12)
    assert not bool(krige(residual, torch.full_like(residual, clean)).any())


def test_a_prediction_stays_within_the_range_of_the_image() -> None:
    y = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)).round()
    estimate = torch.full_like(y, 0.5)
    clean = drawn(y, 0.5)
    found = kriged(y, estimate, clean)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(kriged(y, estimate, torch.zeros_like(y)), estimate)
