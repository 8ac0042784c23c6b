"""Fused operations against the same by plain torch in float64: values, gradients, threads."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dop_lightning.model.signals.unet import kernels

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="needs a C++ compiler")

TYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 3e-2)])
SIZES = pytest.mark.parametrize("size", [(8, 2, 2), (16, 8, 6), (12, 4, 10), (132, 6, 4), (128, 16, 32), (3, 34, 6)])
"""C, H, W: vectors that are full and not, one pixel of interior, pixels taken together."""


def image(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Far from 0, where squares cancel."""
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 + 3
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def vector(size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 0.5 + 1


def plain_activate(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
    y = F.leaky_relu(F.batch_norm(x, None, None, gamma, beta, training=True), 0.2)
    return F.pad(y, (padding,) * 4, mode="reflect") if padding else y


def plain_join(skip: Tensor, low: Tensor, *p: Tensor) -> Tensor:
    branch = plain_activate(skip[..., 1:-1, 1:-1], p[0], p[1], 0)
    up = F.interpolate(plain_activate(low, p[2], p[3], 0), scale_factor=2, mode="bilinear", align_corners=False)
    y = F.batch_norm(torch.cat([branch, up], dim=1), None, None, p[4], p[5], training=True)
    return F.pad(y, (1, 1, 1, 1), mode="reflect")


def assert_agree(fused, plain, inputs: list[Tensor], tolerance: float) -> None:
    """Values and gradients, each by its norm: one entry may lie on the other side of the kink at 0."""
    ours = [t.clone().requires_grad_() for t in inputs]
    theirs = [t.double().requires_grad_() for t in inputs]
    y, expected = fused(*ours), plain(*theirs)
    assert y.shape == expected.shape
    assert y.dtype == inputs[0].dtype
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    y.backward(weights)
    expected.backward(weights.double())
    for a, b in [(y, expected), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]:
        assert float((a.detach().double() - b.detach()).norm()) < tolerance * float(b.detach().norm())


@TYPES
@SIZES
@pytest.mark.parametrize("padding", [0, 1])
def test_activate(dtype, tolerance, size, padding):
    channels = size[0]
    inputs = [image(*size, dtype=dtype), vector(channels, 1), vector(channels, 2)]
    assert_agree(lambda *p: kernels.activate(*p, padding), lambda *p: plain_activate(*p, padding), inputs, tolerance)


@TYPES
@SIZES
@pytest.mark.parametrize("skip", [1, 4, 16, 20, 33])
def test_join(dtype, tolerance, size, skip):
    channels, height, width = size[0], size[1] * 2, size[2] * 2
    sizes = [skip, skip, channels, channels, skip + channels, skip + channels]
    parameters = [vector(n, i) for i, n in enumerate(sizes)]
    inputs = [image(skip, height + 2, width + 2, dtype=dtype), image(*size, dtype=dtype, seed=1), *parameters]
    assert_agree(kernels.join, plain_join, inputs, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pad(dtype):
    z = image(5, 7, 9)
    expected = F.pad(z, (1, 1, 1, 1), mode="reflect").to(dtype)
    assert torch.equal(kernels.pad(z, dtype), expected)
    assert torch.equal(kernels.pad(z.contiguous(), dtype), expected)  # whatever the layout in memory


def test_unsupported_dtypes_are_refused():
    x, ones = image(4, 4, 4), torch.ones(4)
    with pytest.raises(ValueError, match=r"images must all be float32 or all bfloat16, got x torch.float64"):
        kernels.activate(x.double(), ones, ones, 0)
    with pytest.raises(ValueError, match=r"gamma must be 4 contiguous float32 numbers on the CPU, got .*float64"):
        kernels.activate(x, ones.double(), ones, 0)
    with pytest.raises(ValueError, match="images must all be"):
        kernels.join(image(4, 10, 10), x.bfloat16(), *(vector(n, 0) for n in (4, 4, 4, 4, 8, 8)))
    with pytest.raises(ValueError, match="z must be float32 without gradient"):
        kernels.pad(x.clone().requires_grad_(), torch.float32)


def test_too_small_shapes_are_refused():
    x, ones = image(4, 4, 4), torch.ones(4)
    with pytest.raises(ValueError, match=r"x must be one image \(1, C, H, W\) on the CPU, got \(2, 4, 4, 4\)"):
        kernels.activate(x.repeat(2, 1, 1, 1), ones, ones, 0)
    with pytest.raises(ValueError, match=r"on the CPU, got .* on meta"):
        kernels.activate(x.to("meta"), ones, ones, 0)
    with pytest.raises(ValueError, match="beta must be 4 contiguous float32 numbers"):
        kernels.activate(x, ones, torch.ones(3), 0)
    with pytest.raises(ValueError, match=r"gamma must be 4 contiguous float32 numbers"):
        kernels.activate(x, torch.ones(8)[::2], ones, 0)
    with pytest.raises(ValueError, match=r"x must have sides of at least 2 pixels"):
        kernels.activate(image(4, 1, 4), ones, ones, 1)
    with pytest.raises(ValueError, match="padding must be 0 or 1, got 2"):
        kernels.activate(x, ones, ones, 2)
    parameters = [vector(n, 0) for n in (4, 4, 4, 4, 8, 8)]
    with pytest.raises(
        ValueError, match=r"the sides of skip must be 2 pixels longer than twice those of low, \(4, 4\), got"
    ):
        kernels.join(image(4, 9, 10), x, *parameters)
    with pytest.raises(ValueError, match=r"beta of the join must be 8 contiguous"):
        kernels.join(image(4, 10, 10), x, *parameters[:-1], torch.ones(7))
    with pytest.raises(ValueError, match=r"parameters must be gamma of skip, .* got 5"):
        kernels.join(image(4, 10, 10), x, *parameters[:-1])


def test_default_dtype_of_torch_has_no_effect():
    one = [image(4, 4, 4), vector(4, 1), vector(4, 2)]
    two = [image(4, 10, 10), image(4, 4, 4, seed=1), *(vector(n, i) for i, n in enumerate((4, 4, 4, 4, 8, 8)))]
    torch.set_default_dtype(torch.float64)
    try:
        assert_agree(lambda *p: kernels.activate(*p, 1), lambda *p: plain_activate(*p, 1), one, 2e-3)
        assert_agree(kernels.join, plain_join, two, 2e-3)
    finally:
        torch.set_default_dtype(torch.float32)


def test_nonfinite_values_are_preserved():
    z = torch.zeros(1, 1, 4, 4)
    z[..., 1, 1], z[..., 2, 2] = float("nan"), float("inf")
    padded = kernels.pad(z, torch.bfloat16)[..., 1:-1, 1:-1]
    assert padded[..., 1, 1].isnan().all()
    assert padded[..., 2, 2].isinf().all()
    y = kernels.activate(image(4, 4, 4) * float("nan"), torch.ones(4), torch.zeros(4), 1)
    assert y.isnan().all()


def gradients(threads: int) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sizes = [4, 4, 16, 16, 20, 20]
        inputs = [image(4, 26, 34), image(16, 12, 16, seed=1), *(vector(n, i) for i, n in enumerate(sizes))]
        leaves = [t.requires_grad_() for t in inputs]
        kernels.join(*leaves).square().sum().backward()
        return [leaf.grad for leaf in leaves]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_number_of_threads_changes_rounding_reproducibly(threads):
    first, second, one = gradients(threads), gradients(threads), gradients(1)
    for a, b, c in zip(first, second, one, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-3 * float(c.abs().max()))


def test_more_threads_than_rows():
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        inputs = [image(8, 2, 2), vector(8, 1), vector(8, 2)]
        assert_agree(lambda *p: kernels.activate(*p, 1), lambda *p: plain_activate(*p, 1), inputs, 2e-3)
        sizes = [4, 4, 8, 8, 12, 12]
        inputs = [image(4, 6, 6), image(8, 2, 2, seed=1), *(vector(n, i) for i, n in enumerate(sizes))]
        assert_agree(kernels.join, plain_join, inputs, 2e-3)
    finally:
        torch.set_num_threads(before)
