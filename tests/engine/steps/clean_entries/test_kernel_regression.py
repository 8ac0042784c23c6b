"""The kernel regression that leaves out the entry that it predicts."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries import leave_one_out, regression
from dop_lightning.engine.steps.clean_entries.blur import Border, blur, gaussian
from dop_lightning.problems.metrics import psnr


def shades(side: int = 32) -> torch.Tensor:
    x = torch.linspace(0, 3, side)
    return torch.stack([0.5 + 0.4 * torch.sin(x[None] + k) * torch.cos(x[:, None]) for k in range(3)])


def _psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    return float(psnr(image[None], truth[None], 1.0))


@pytest.mark.parametrize("scale", [0.6, 2.0, 16.0])
def test_equals_the_documented_sum(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    y, clean = (torch.rand(1, 9, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    reach = int(3 * scale + 1)
    rows = [_mirror(i, 9) for i in range(-reach, 9 + reach)]
    columns = [_mirror(j, 11) for j in range(-reach, 11 + reach)]
    wide, weights = y[0][rows][:, columns], clean[0][rows][:, columns]
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-(steps[:, None].square() + steps[None].square()) / (2 * scale**2))
    kernel[reach, reach] = 0
    expected = torch.empty(9, 11, dtype=torch.float64)
    for i in range(9):
        for j in range(11):
            part = (slice(i, i + 2 * reach + 1), slice(j, j + 2 * reach + 1))
            w = kernel * weights[part]
            expected[i, j] = (w * wide[part]).sum() / w.sum()
    torch.testing.assert_close(leave_one_out(y, clean, [scale])[0], expected)


def _mirror(i: int, length: int) -> int:
    i %= 2 * (length - 1)
    return min(i, 2 * (length - 1) - i)


def test_estimate_excludes_the_entry_itself() -> None:
    y, clean = shades(), torch.ones(3, 32, 32)
    changed = y.clone()
    changed[0, 10, 10] += 100
    one, two = leave_one_out(y, clean), leave_one_out(changed, clean)
    assert abs(one[0, 10, 10] - two[0, 10, 10]) < 1e-3
    assert abs(one[0, 10, 11] - two[0, 10, 11]) > 1


def test_corrupted_entries_have_no_influence() -> None:
    y = shades()
    clean = (torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    one = leave_one_out(y, clean)
    two = leave_one_out(torch.where(clean > 0, y, torch.nan), clean)
    assert torch.equal(one, two)
    assert _psnr(one, y) > 35


def test_holes_are_filled_from_afar() -> None:
    y, clean = shades(), torch.ones(3, 32, 32)
    clean[:, 8:24, 8:24] = 0
    assert (leave_one_out(y, clean) - y).abs().max() < 0.25


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 5, 1), (3, 2, 2)])
def test_any_size(shape: tuple[int, int, int]) -> None:
    estimate = regression(torch.full(shape, 0.5), torch.ones(shape))
    assert bool(estimate.isfinite().all())
    assert bool((regression(torch.full(shape, 0.5), torch.zeros(shape)) == 0).all()), "nothing is known"


def test_larger_scales_remove_dense_noise() -> None:
    truth = shades(64)
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    clean = torch.ones_like(truth)
    assert _psnr(regression(noisy, clean), truth) > _psnr(leave_one_out(noisy, clean), truth) + 3


@pytest.mark.parametrize("border", ["reflect", "replicate"])
def test_a_blur_is_a_convolution(border: Border) -> None:
    image = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(0))
    line = gaussian(3, 1.5, like=image)
    around = torch.nn.functional.pad(image[None], (3, 3, 3, 3), mode=border)
    kernel = torch.outer(line, line)[None, None].expand(2, 1, -1, -1)
    expected = torch.nn.functional.conv2d(around, kernel, groups=2)[0]
    torch.testing.assert_close(blur(image, line, border), expected)
