"""Convolutions in strips against the same by plain torch in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dop_lightning.model.signals.unet.kernels import convolution
from dop_lightning.model.signals.unet.kernels.convolution import convolve, strips_of


def channels_last(*shape: int, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def three_strips(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    x = channels_last(1, 6, 23, 18, seed=0)
    monkeypatch.setattr(convolution, "STRIP", x.numel() * 2 // 3)  # of bfloat16
    assert strips_of(x.bfloat16(), 3) == 3
    return x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("of_x", [True, False])
def test_strips_agree_with_the_whole_image(three_strips: Tensor, stride: int, bias: bool, of_x: bool) -> None:
    """Strips that overlap where kernels do, with rows left over, and an input that may be fixed."""
    x, weight, shift = three_strips, channels_last(5, 6, 3, 3, seed=1), channels_last(5, 1, 1, 1, seed=2).flatten()
    found = [x.bfloat16(), weight.clone(), shift.clone()]
    exact = [t.detach().bfloat16().double() for t in (x, weight, shift)]
    for t in (*found[0 if of_x else 1 :], *exact):
        t.requires_grad_()
    y = convolve(found[0], found[1], found[2] if bias else None, stride)
    assert "Convolve" in y.grad_fn.name()  # in strips, indeed
    expected = F.conv2d(exact[0], exact[1], exact[2] if bias else None, stride)
    weights = channels_last(*y.shape, seed=3).bfloat16()
    y.backward(weights.contiguous())  # whatever its layout in memory
    expected.backward(weights.double())
    assert y.dtype == torch.bfloat16
    assert (found[0].grad is None) == (not of_x)
    assert (found[2].grad is None) == (not bias)
    for ours, theirs in [(y, expected), *((a.grad, b.grad) for a, b in zip(found, exact, strict=True))]:
        if ours is not None:
            error = (ours.detach().double() - theirs.detach()).norm()
            assert float(error) < 1e-2 * float(theirs.detach().norm())


def test_few_rows_are_split_into_single_row_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "STRIP", 1)
    x, weight = channels_last(1, 4, 5, 5, seed=0).bfloat16(), channels_last(2, 4, 3, 3, seed=1).requires_grad_()
    convolve(x, weight, None).float().sum().backward()
    expected = F.conv2d(x.float(), weight, None)
    (gradient,) = torch.autograd.grad(expected.sum(), weight)
    torch.testing.assert_close(weight.grad, gradient, rtol=2e-2, atol=2e-2)


def test_small_convolutions_use_torch() -> None:
    x, weight = channels_last(1, 4, 9, 9, seed=0), channels_last(2, 4, 3, 3, seed=1).requires_grad_()
    assert torch.equal(convolve(x, weight, None), F.conv2d(x, weight))
    assert strips_of(torch.empty(1, 132, 514, 514), 3) == 1  # float32
    assert strips_of(torch.empty(1, 132, 514, 514, dtype=torch.bfloat16), 1) == 1  # 1×1
