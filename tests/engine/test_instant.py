"""Restoring an image without a network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dop_lightning import recover_image
from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.rivals import FilterMethod
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import MissingEntries, Mixture, RandomValuedImpulse, SaltAndPepper
from dop_lightning.problems.problem import Problem, ProblemBatch


def scene(side: int = 72) -> Tensor:
    """Shades, a disc and grain that the channels share, from 0.1 to 0.9."""
    x = torch.linspace(0, 1, side)
    disc = ((x[:, None] - 0.5).square() + (x - 0.5).square() < 0.1).float()
    grain = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    base = 0.3 + 0.3 * x[:, None] * x + 0.15 * disc + 0.03 * grain
    return torch.stack([base, 0.9 * base + 0.05, 0.8 * base + 0.1]).clamp(0.1, 0.9)


def problem_of(noise: object, truth: Tensor) -> Problem:
    found = noise.corrupt(truth, torch.Generator().manual_seed(1))  # type: ignore[attr-defined]
    return Problem("scene", found.observation, truth=truth, mask=found.mask, data_range=1.0)


@pytest.mark.parametrize("noise", [SaltAndPepper(0.3), RandomValuedImpulse(0.3), SaltAndPepper(0.3, per="pixel")])
def test_outliers_are_found_and_filled_and_clean_values_kept(noise: object) -> None:
    truth = scene()
    problem = problem_of(noise, truth)
    found = Interpolation(per=getattr(noise, "per", "entry")).restored(problem)
    before, after = (float(psnr(x[None], truth[None], 1.0)) for x in (problem.observation, found.signal))
    assert after > before + 12
    assert found.probability is not None
    corrupted = problem.observation != truth
    assert float(found.probability[corrupted].mean()) > 0.75
    assert float(found.probability[~corrupted].mean()) < 0.1
    kept = found.probability < 0.01
    assert torch.equal(found.signal[kept], problem.observation[kept])


def test_half_of_the_values_may_be_random() -> None:
    """Then no entry is clean for certain."""
    problem = problem_of(RandomValuedImpulse(0.5), scene())
    before, after = (
        float(psnr(x[None], scene()[None], 1.0))
        for x in (problem.observation, Interpolation().restored(problem).signal)
    )
    assert after > before + 10


def test_a_texture_is_not_rejected() -> None:
    """Many of its entries are far from any estimate, but outliers have two values."""
    grain = torch.rand(1, 96, 96, generator=torch.Generator().manual_seed(0))
    truth = 0.1 + 0.8 * torch.nn.functional.avg_pool2d(grain, 2, 1, 1)[:, :96, :96]
    problem = problem_of(SaltAndPepper(0.1), truth)
    found = Interpolation().restored(problem)
    clean = problem.observation == truth
    assert float((found.signal == truth)[clean].float().mean()) > 0.7


def test_unobserved_entries_are_filled_and_have_no_influence() -> None:
    truth = scene()
    problem = problem_of(Mixture([SaltAndPepper(0.1), MissingEntries(0.2)]), truth)
    assert problem.mask is not None
    other = replace(problem, observation=torch.where(problem.mask, problem.observation, 0.77))
    one, two = (Interpolation().restored(each) for each in (problem, other))
    assert torch.equal(one.signal, two.signal)
    assert float((one.signal - truth)[~problem.mask].abs().mean()) < 0.03
    assert one.probability is not None
    assert not bool(one.probability[~problem.mask].any())


@pytest.mark.parametrize("kind", ["scene", "noise", "checkerboard"])
def test_undamaged_images_are_unchanged(kind: str) -> None:
    truth = {
        "scene": scene(),
        "noise": torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)),
        "checkerboard": torch.eye(2).repeat(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)[None],
    }[kind]
    found = Interpolation().restored(Problem(kind, truth, data_range=1.0))
    assert torch.equal(found.signal, truth)


def test_state_resumes_with_its_findings() -> None:
    problems = ProblemBatch([problem_of(SaltAndPepper(0.3), scene(32))])
    method = FilterMethod(Interpolation())
    state, other = method.begin(problems), method.begin(problems)
    state.advance(1)
    assert other.corruption_probability(0, 0) is None
    other.load_problem_state(0, state.problem_state(0))
    for each in (other, state.select([0])):
        assert each.finished() == {0: "done"}
        assert torch.equal(each.evaluate().signal, state.evaluate().signal)
        one, two = (s.corruption_probability(0, 1) for s in (each, state))
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


def test_recover_image_supports_tiles() -> None:
    truth = (scene(96) * 255).round().byte().permute(1, 2, 0).numpy()
    rng = np.random.default_rng(0)
    damaged = np.where(rng.random(truth.shape) < 0.2, rng.choice([0, 255], truth.shape), truth).astype(np.uint8)
    whole = recover_image(damaged, preset="instant", device="cpu", progress=False)
    tiles = recover_image(damaged, preset="instant", device="cpu", progress=False, tile=64)
    assert (whole.status, whole.iterations, whole.alpha) == ("done", 1, None)
    for found in (whole, tiles):
        assert found.image.dtype == np.uint8
        assert np.abs(found.image.astype(float) - truth).mean() < 2
        assert found.corruption_probability is not None
        assert found.corruption_probability.shape == truth.shape
