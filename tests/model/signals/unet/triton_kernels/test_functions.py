"""The kernels in Triton against plain operations; without a GPU by Triton's interpreter, see conftest.py."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dop_lightning.model.signals.unet.fused_unet import fused_forward
from dop_lightning.model.signals.unet.skip_network import skip_network
from dop_lightning.model.signals.unet.triton_kernels import functions, operations
from tests.suites.part import draw

pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def activated(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
    y = F.leaky_relu(F.batch_norm(x, None, None, gamma, beta, training=True), 0.2)
    return F.pad(y, (1, 1, 1, 1), mode="reflect") if padding else y


def joined(skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
    inside = activated(skip[:, :, 1:-1, 1:-1], *parameters[:2], 0)
    up = F.interpolate(activated(low, *parameters[2:4], 0), scale_factor=2, mode="bilinear")
    norm = F.batch_norm(torch.cat([inside, up], 1), None, None, *parameters[4:], training=True)
    return F.pad(norm, (1, 1, 1, 1), mode="reflect")


def image(seed: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    x = draw(seed, (1, *shape), torch.float32).add(0.3).to(DEVICE, dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def numbers(seed: int, size: int) -> Tensor:
    return draw(seed, (size,), torch.float32).abs().add(0.5).to(DEVICE).requires_grad_()


def assert_agree(function: Callable[..., Tensor], plain: Callable[..., Tensor], arguments: list[Tensor], *more) -> None:
    """Values and gradients; those of plain operations in float32."""
    tolerance = TOLERANCES[arguments[0].dtype]
    exact = [a.detach().float().requires_grad_() for a in arguments]
    got, wanted = function(*arguments, *more), plain(*exact, *more)
    assert got.dtype == arguments[0].dtype
    assert got.is_contiguous(memory_format=torch.channels_last)
    weights = draw(99, wanted.shape, torch.float32).to(DEVICE)
    (got.float() * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert_close(got.detach(), wanted.detach(), tolerance)
    # those of two parameters may be sums of which nothing is left: together
    images = [a.dim() == 4 for a in arguments]
    for a, b in zip(arguments[: sum(images)], exact, strict=False):
        assert_close(a.grad, b.grad, tolerance)
    parameters = [torch.cat([p.grad for p in group[sum(images) :]]) for group in (arguments, exact)]
    assert_close(*parameters, tolerance)


def assert_close(one: Tensor, other: Tensor, tolerance: float) -> None:
    """Relative to the largest value."""
    assert float((one.float() - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shape", [(10, 4, 3), (3, 2, 5), (70, 3, 4)])
def test_activate(shape: tuple[int, int, int], padding: int, dtype: torch.dtype) -> None:
    arguments = [image(1, shape, dtype), numbers(2, shape[0]), numbers(3, shape[0])]
    assert_agree(functions.activate, activated, arguments, padding)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("skips", "channels", "height", "width"), [(1, 3, 4, 3), (4, 6, 3, 4), (66, 3, 2, 3)])
def test_join(skips: int, channels: int, height: int, width: int, dtype: torch.dtype) -> None:
    images = [image(1, (skips, 2 * height + 2, 2 * width + 2), dtype), image(2, (channels, height, width), dtype)]
    sizes = [skips, skips, channels, channels, skips + channels, skips + channels]
    assert_agree(functions.join, joined, [*images, *(numbers(3 + i, size) for i, size in enumerate(sizes))])


def test_several_tiles_blocks_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    from dop_lightning.model.signals.unet.triton_kernels import launches

    monkeypatch.setattr(launches, "MAX_PROGRAMS", 2)
    monkeypatch.setattr(launches, "TILE_ELEMENTS", 128)
    monkeypatch.setattr(launches, "CHANNELS", 8)
    arguments = [image(1, (10, 7, 6), torch.float32), numbers(2, 10), numbers(3, 10)]
    assert_agree(functions.activate, activated, arguments, 1)
    images = [image(1, (4, 8, 10), torch.float32), image(2, (6, 3, 4), torch.float32)]
    parameters = [numbers(3 + i, size) for i, size in enumerate((4, 4, 6, 6, 10, 10))]
    assert_agree(functions.join, joined, [*images, *parameters])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_pad(dtype: torch.dtype) -> None:
    z = image(0, (5, 3, 4), torch.float32).detach()
    made = functions.pad(z, dtype)
    assert made.dtype == dtype
    # the interpreter does not round to the nearest bf16
    torch.testing.assert_close(made.float(), F.pad(z, (1, 1, 1, 1), mode="reflect"), rtol=TOLERANCES[dtype] / 2, atol=0)


def test_images_far_from_zero_keep_their_variance() -> None:
    x = image(1, (3, 4, 4), torch.float32).detach() * 0.01 + 100
    one = torch.ones(3, device=DEVICE)
    made = functions.activate(x, one, 0 * one, 0)
    exact = activated(x.double(), one.double(), 0 * one.double(), 0).float()
    torch.testing.assert_close(made, exact, rtol=0, atol=1e-3)


def test_casts_and_their_gradients() -> None:
    tensors = [numbers(0, 4), image(1, (3, 2, 2), torch.float32)]
    cast = functions.cast(tensors, torch.bfloat16)
    assert [each.dtype for each in cast] == [torch.bfloat16] * 2
    assert all(torch.equal(one, other.bfloat16()) for one, other in zip(cast, tensors, strict=True))
    (cast[0].sum() + (2 * cast[1]).sum()).backward()
    assert torch.equal(tensors[0].grad, torch.ones_like(tensors[0]))
    assert torch.equal(tensors[1].grad, 2 * torch.ones_like(tensors[1]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_networks_agree(dtype: torch.dtype, bias: bool) -> None:
    from dop_lightning.model.signals.unet.triton_kernels.network import TritonOperations

    torch.manual_seed(0)
    network = skip_network(3, 6, 2, 4, 2, bias).to(DEVICE)
    z = image(1, (4, 8, 12), torch.float32).detach()
    weights = draw(2, (1, 3, 8, 12), torch.float32).to(DEVICE)
    found = []
    for output in (network(z), fused_forward(network, z, dtype, TritonOperations(network, dtype))):
        network.zero_grad()
        (output.float().sigmoid() * weights).sum().backward()
        found.append([output.detach().float(), torch.cat([p.grad.flatten() for p in network.parameters()])])
    tolerance = 1e-4 if dtype == torch.float32 else 0.15  # of many layers
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm()) <= tolerance * float(one.norm())


def test_results_on_meta_have_the_layout_of_results() -> None:
    x, skip = image(1, (3, 2, 3), torch.bfloat16).detach(), image(2, (2, 6, 8), torch.bfloat16).detach()
    gammas = [numbers(0, size).detach() for size in (2, 2, 3, 3, 5, 5)]
    y, moments = operations.activate(x, gammas[2], gammas[3], 1)
    joined, both = operations.join(skip, x, gammas)
    cases = [
        (operations.pad, (x, torch.float32)),
        (operations.activate, (x, gammas[2], gammas[3], 1)),
        (operations.activate_backward, (y, x, moments, gammas[2], gammas[3], 1)),
        (operations.join, (skip, x, gammas)),
        (operations.join_backward, (joined, skip, x, both, gammas)),
    ]
    for operator, arguments in cases:
        on_meta = [
            a.to("meta") if isinstance(a, Tensor) else [p.to("meta") for p in a] if isinstance(a, list) else a
            for a in arguments
        ]
        for one, other in zip(_all(operator(*arguments)), _all(operator(*on_meta)), strict=True):
            assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def _all(results: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [results] if isinstance(results, Tensor) else results


def test_arguments_are_checked() -> None:
    x, one, two = image(0, (3, 4, 4), torch.float32).detach(), numbers(0, 3), numbers(0, 2)
    with pytest.raises(ValueError, match=r"^x must be one image .* got shape \(3, 4, 4\), torch.float32$"):
        functions.activate(x[0], one, one, 0)
    with pytest.raises(ValueError, match=r"got shape .*, torch.float64$"):
        functions.activate(x.double(), one, one, 0)
    with pytest.raises(ValueError, match=r"parameters of norms must be 3 .* got shape \(2,\), torch.float32 on "):
        functions.activate(x, one, two, 0)
    with pytest.raises(ValueError, match="padding must be 0 or 1, got 2"):
        functions.activate(x, one, one, 2)
    with pytest.raises(ValueError, match="z must not require a gradient"):
        functions.pad(x.requires_grad_(), torch.float32)
    x = x.detach()
    with pytest.raises(ValueError, match=r"dtype must be float32 or bfloat16, got torch.float16"):
        functions.pad(x, torch.float16)
    with pytest.raises(ValueError, match="parameters must be gamma and beta of three norms, got 2"):
        functions.join(x, x, one, one)
    five = numbers(0, 6)
    with pytest.raises(ValueError, match=r"2 pixels longer than twice those of low, \(4, 4\), got \(4, 4\)"):
        functions.join(x, x, one, one, one, one, five, five)
    with pytest.raises(ValueError, match=r"images must have the same dtype and device, got torch.bfloat16 on"):
        functions.join(x, x.bfloat16(), one, one, one, one, five, five)
