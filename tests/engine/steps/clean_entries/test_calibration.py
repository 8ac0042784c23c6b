"""The calibrated probability that an entry is corrupted."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dop_lightning.engine.steps.clean_entries import clean_probability, corruption_probability
from dop_lightning.engine.steps.clean_entries.unlabelled import Examples, fit_positive_unlabelled
from dop_lightning.images.formats import find_images
from dop_lightning.problems.noise import Noise, RandomValuedImpulse, SaltAndPepper


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def calibration_error(probability: Tensor, corrupted: Tensor, bins: int = 15) -> float:
    """By the definition, one bin after the other."""
    at = (probability * bins).floor().clamp_max(bins - 1)
    parts = [(probability[at == k].double(), corrupted[at == k].double()) for k in range(bins)]
    return sum(abs(float(p.mean() - c.mean())) * len(p) for p, c in parts if len(p)) / probability.numel()


def brier(probability: Tensor, corrupted: Tensor) -> float:
    return float((probability.double() - corrupted.double()).square().mean())


def photograph(side: int = 64) -> Tensor:
    """A photograph with so much contrast that parts of it are black, in 8 bits."""
    with Image.open(find_images("astronaut")[0]) as image:
        pixels = np.asarray(image)[:side, :side]
    shades = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous() / 255
    return ((1.6 * shades - 0.4).clamp(0, 1) * 255).round() / 255


def blurred(truth: Tensor) -> Tensor:
    """An estimate that errs at edges."""
    mean = avg_pool2d(truth[None], 3, 1, 1, count_include_pad=False)[0]
    return mean + 0.01 * torch.randn(truth.shape, generator=generator(7))


def damaged(truth: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """An observation in 8 bits, and which of its entries are corrupted."""
    y = (noise.corrupt(truth, generator(1)).observation * 255).round() / 255
    return y, y != truth


@pytest.mark.parametrize("per", ["entry", "pixel"])
@pytest.mark.parametrize("kind", [SaltAndPepper, RandomValuedImpulse])
def test_probability_is_calibrated_and_better_than_its_input(kind: type[Noise], per: str) -> None:
    truth = photograph()
    y, corrupted = damaged(truth, kind(0.3, per=per))
    if per == "pixel":  # the channels have one probability
        corrupted = corrupted.any(dim=0, keepdim=True).expand(y.shape)
    held_out = (torch.rand(1, *y.shape[1:], generator=generator(3)) < 0.1).expand(y.shape).contiguous()
    estimate = blurred(truth)
    clean = clean_probability(y, estimate, held_out, per_pixel=per == "pixel")
    p = corruption_probability(y, estimate, clean, held_out, per_pixel=per == "pixel")
    assert calibration_error(1 - clean, corrupted) > 2 * calibration_error(p, corrupted)
    assert calibration_error(p, corrupted) < 0.02
    assert brier(p, corrupted) < 0.8 * brier(1 - clean, corrupted)
    if per == "pixel":
        assert bool((p == p[:1]).all())


def test_black_on_black_is_not_corruption() -> None:
    """Half of the picture is black: most black entries there are clean, elsewhere they are pepper."""
    truth = torch.full((1, 48, 48), 0.5)
    truth[:, :, :24] = 0.0
    y, _ = damaged(truth, SaltAndPepper(0.3))
    estimate = truth + 0.01 * torch.randn(truth.shape, generator=generator(7))
    p = corruption_probability(y, estimate, clean=(y != 0).float() * (y != 1))  # all that is black is suspected
    black = y[0] == 0
    assert float(p[0, :, :24][black[:, :24]].mean()) < 0.1
    assert float(p[0, :, 24:][black[:, 24:]].min()) > 0.95


def test_unobserved_entries_have_no_influence_and_probability_0() -> None:
    truth = photograph(48)
    y, _ = damaged(truth, SaltAndPepper(0.3))
    estimate = blurred(truth)
    observed = torch.rand(y.shape, generator=generator(5)) > 0.4
    clean = ((y - estimate).abs() < 0.2).float()
    one, other = (
        corruption_probability(torch.where(observed, y, hidden), estimate, clean, observed=observed)
        for hidden in (torch.tensor(0.0), torch.tensor(1.0))
    )
    assert torch.equal(one, other)
    assert bool((one[~observed] == 0).all())
    assert float(one[observed].mean()) == pytest.approx(0.3, abs=0.05)
    nothing = corruption_probability(y, estimate, clean, observed=torch.zeros_like(observed))
    assert torch.equal(nothing, torch.zeros_like(y))


@pytest.mark.parametrize("shape", [(3, 20, 20), (1, 1, 40), (2, 30, 1), (12, 12), (50,)])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_any_shape_gives_probabilities(shape: tuple[int, ...], per_pixel: bool) -> None:
    truth = torch.linspace(0.3, 0.7, int(np.prod(shape))).reshape(shape)
    hit = torch.rand(shape, generator=generator()) < 0.2
    y = torch.where(hit, torch.ones(()), truth)
    p = corruption_probability(y, truth, 1 - hit.float(), per_pixel=per_pixel and len(shape) == 3)
    assert p.shape == shape
    assert p.dtype == torch.float32
    assert bool(((p >= 0) & (p <= 1)).all())


def test_without_outliers_probability_equals_its_input() -> None:
    truth = photograph(32)
    clean = torch.full_like(truth, 0.75)
    assert torch.equal(corruption_probability(truth, truth, clean), 1 - clean)
    black = torch.zeros_like(truth)  # far from all, and known to be clean
    assert torch.equal(corruption_probability(black, truth + 0.5, torch.ones_like(truth)), black)


def test_held_out_entries_use_their_own_error() -> None:
    """The estimate has followed the other ones: their error is a quarter, and outliers near it are fitted as well."""
    truth = (torch.linspace(51, 204, 80).round() / 255).expand(3, 80, 80)
    y, corrupted = damaged(truth, RandomValuedImpulse(0.3))
    held_out = torch.rand(y.shape, generator=generator(3)) < 0.2
    honest = truth + 0.04 * torch.randn(truth.shape, generator=generator(4))
    near = (y - honest).abs() < 0.12
    estimate = torch.where(near & ~held_out, y + (honest - y) / 4, honest)
    clean = ((y - estimate).abs() < 0.12).float()
    told, untold = (corruption_probability(y, estimate, clean, which) for which in (held_out, None))
    for which in (held_out, ~held_out):
        errors = [calibration_error(p[which], corrupted[which]) for p in (told, untold)]
        assert errors[0] < 0.6 * errors[1]


def test_units_do_not_matter() -> None:
    truth = photograph(32)
    y, _ = damaged(truth, RandomValuedImpulse(0.3))
    estimate, clean = blurred(truth), ((y - blurred(truth)).abs() < 0.2).float()
    p = corruption_probability(y, estimate, clean)
    torch.testing.assert_close(corruption_probability(8 * y, 8 * estimate, clean, scale=8.0), p, rtol=0, atol=1e-4)


def test_calibration_is_reproducible() -> None:
    truth = photograph(32)
    y, _ = damaged(truth, SaltAndPepper(0.3))
    estimate, clean = blurred(truth), ((y - blurred(truth)).abs() < 0.2).float()
    first = corruption_probability(y, estimate, clean)
    torch.manual_seed(5)
    assert torch.equal(corruption_probability(y, estimate, clean), first)
    state = torch.get_rng_state()
    corruption_probability(y, estimate, clean)
    assert torch.equal(torch.get_rng_state(), state)


def test_positive_and_unlabelled_examples_give_the_posterior() -> None:
    """N(3, 1) of positive examples and N(0, 1) of others: the log odds are ``logit π + 3x − 4.5``."""
    draws = torch.randn(3, 20_000, generator=generator(), dtype=torch.float64)
    is_positive = torch.rand(20_000, generator=generator(1)) < 0.25
    scores = torch.where(is_positive, draws[0] + 3, draws[1])

    def examples(x: Tensor) -> Examples:
        return Examples(x[:, None, None], torch.zeros_like(x), torch.ones(len(x), 1, dtype=torch.bool))

    weights = torch.full((20_000,), 0.25, dtype=torch.float64)
    fitted = fit_positive_unlabelled(examples(scores), examples(draws[2] + 3), weights, ridge=1.0)
    at = torch.linspace(-1, 4, 11, dtype=torch.float64)
    expected = torch.sigmoid(torch.logit(torch.tensor(0.25, dtype=torch.float64)) + 3 * at - 4.5)
    torch.testing.assert_close(fitted.probability(examples(at)), expected, rtol=0, atol=0.06)
    assert float(fitted.probability(examples(scores)).mean()) == pytest.approx(0.25, abs=2e-3)


def test_entries_without_doubt_may_keep_their_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.linspace(0.2, 0.8, 96).expand(1, 96, 96)
    hit = torch.rand(truth.shape, generator=generator) < 0.01
    y = torch.where(hit, torch.rand(truth.shape, generator=generator), truth)
    estimate = truth + 0.01 * torch.randn(truth.shape, generator=generator)
    clean = ((y - estimate).abs() < 0.1).float()
    every, doubted = (corruption_probability(y, estimate, clean, rounds=1, doubted_only=only) for only in (False, True))
    kept = (doubted == 0) & (every > 0)
    assert kept.float().mean() > 0.5, "most entries are near their estimate"
    assert torch.equal(every[~kept], doubted[~kept])
    assert float(every[kept].max()) < 0.02
