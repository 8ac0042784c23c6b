"""Default ratio of the learning rates."""

from functools import partial
from typing import Any

import pytest
import torch

from dop_lightning.engine.alpha import default_alphas, reveal_time
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.pace import ADAM, GRADIENT_DESCENT
from dop_lightning.model.corruption import Corruption, HadamardCorruption, NoCorruption, PixelCorruption
from dop_lightning.model.losses import AbsoluteLoss, Loss, SquaredLoss
from dop_lightning.model.signals import Factor, SkipUNet
from dop_lightning.problems.problem import Problem, ProblemBatch

MEAN = SquaredLoss("mean")
ADAM_AT = {rate: partial(torch.optim.Adam, lr=rate) for rate in (0.005, 0.01)}


def images(*shape: int, **settings: Any) -> ProblemBatch:
    return ProblemBatch([Problem("image", torch.zeros(shape), data_range=1.0, **settings)])


def corruption_of(problems: ProblemBatch, scale: float = 1e-5) -> Corruption:
    return HadamardCorruption(problems, scale=scale, tied=False)


def alpha_of(problems: ProblemBatch, scale: float = 1e-5, tau: float = 1.0, optimizer: Any = None) -> float:
    (alpha,) = default_alphas(problems, MEAN, [tau], corruption_of(problems, scale), optimizer)
    return alpha


@pytest.mark.parametrize(("shape", "alpha"), [((9, 9), 3.0), ((4, 16), 4.0), ((16, 4), 4.0)])
def test_alpha_of_a_matrix_is_the_root_of_the_longer_side(shape: tuple[int, int], alpha: float) -> None:
    problems = ProblemBatch([Problem(f"m{k}", torch.zeros(shape)) for k in range(2)])
    assert default_alphas(problems, SquaredLoss(), [1.0, 1.0]) == [alpha, alpha]
    assert BatchState(Method(Factor), problems, 0.01).alpha == [alpha, alpha]


def test_alpha_of_images_is_the_measured_one_at_128_pixels() -> None:
    assert alpha_of(images(3, 128, 128)) == pytest.approx(400, rel=0.01)
    assert alpha_of(images(3, 128, 128), optimizer=ADAM_AT[0.005]) == pytest.approx(1772, rel=0.01)


def test_alpha_of_images_grows_with_size() -> None:
    for optimizer in (None, ADAM_AT[0.005]):
        base = alpha_of(images(3, 128, 128), optimizer=optimizer)
        assert alpha_of(images(3, 128, 512), optimizer=optimizer) == pytest.approx(2 * base, rel=0.01)
        assert alpha_of(images(3, 256, 512), optimizer=optimizer) == pytest.approx(4 * base, rel=0.01)
        assert alpha_of(images(3, 64, 64), optimizer=optimizer) == pytest.approx(base / 2, rel=0.01)
        assert alpha_of(images(1, 128, 128), optimizer=optimizer) == pytest.approx(base / 3**0.5, rel=0.01)


def test_alpha_of_images_reveals_a_quarter_of_the_range_in_time() -> None:
    for scale in (1e-5, 1e-3):
        for optimizer, iterations in ((None, GRADIENT_DESCENT / 0.5), (ADAM_AT[0.01], ADAM / 0.01)):
            problems = images(3, 128, 128)
            alpha = alpha_of(problems, scale, 0.5, optimizer)
            found = reveal_time(MEAN, 0.5 * alpha, 0.25, corruption_of(problems, scale), problems, 0)
            assert found == pytest.approx(iterations, rel=1e-6)


def test_alpha_of_images_follows_their_scale() -> None:
    """A residual ten times as large makes s grow ten times as fast."""
    problems = ProblemBatch([Problem("image", torch.zeros(3, 64, 64), data_range=10.0)])
    assert alpha_of(problems) == pytest.approx(0.1 * alpha_of(images(3, 64, 64)), rel=0.15)


def test_steps_of_tiny_images_stay_stable() -> None:
    fast = partial(torch.optim.Adam, lr=0.2)
    assert alpha_of(images(3, 8, 8), optimizer=fast) == pytest.approx(3 * 8 * 8 / 8)


def test_missing_entries_and_whole_pixels() -> None:
    mask = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    masked = images(3, 64, 64, mask=mask)
    assert alpha_of(masked) == pytest.approx(alpha_of(images(3, 64, 64)), rel=0.01)
    problems = images(3, 64, 64)
    (alpha,) = default_alphas(problems, MEAN, [1.0], PixelCorruption(problems, scale=1e-5))
    assert alpha == pytest.approx(alpha_of(problems), rel=0.02)


def test_given_number_overrides_the_default() -> None:
    small = partial(SkipUNet, width=2, scales=1)
    problems = images(3, 16, 16, alpha=7.0)
    assert default_alphas(problems, MEAN, [1.0], corruption_of(problems)) == [7.0]
    assert BatchState(Method(small, loss=MEAN), images(3, 16, 16), 1.0, 33.0).alpha == [33.0]
    assert BatchState(Method(small, loss=MEAN), problems, 1.0).alpha == [7.0]


def test_any_number_is_accepted_without_a_corruption() -> None:
    problems = images(3, 16, 16)
    assert default_alphas(problems, MEAN, [1.0], NoCorruption(problems)) == [1.0]


def test_optimizer_with_rate_0_has_no_default_alpha() -> None:
    with pytest.raises(ValueError, match=r"lr of the theta_optimizer must be a finite number above 0, got 0.0"):
        alpha_of(images(3, 16, 16), optimizer=partial(torch.optim.Adam, lr=0.0))


@pytest.mark.parametrize("loss", [SquaredLoss("sum"), AbsoluteLoss("mean")])
def test_other_losses_have_no_default_alpha_for_images(loss: Loss) -> None:
    problems = images(3, 9, 12)
    with pytest.raises(ValueError, match=r"alpha has no default for a signal of shape \(3, 9, 12\) and this loss"):
        default_alphas(problems, loss, [1.0], corruption_of(problems))
