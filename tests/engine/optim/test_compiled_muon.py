"""Compiled steps of Muon: the result of the formula in double precision, whatever the shape, layout and threads."""

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.engine.optim import compiled_muon
from dop_lightning.engine.optim.muon import ROUNDS, Muon, orthogonalised
from dop_lightning.foundation.native.compiled import library
from dop_lightning.foundation.thread_count import threads_here
from tests.suites.part import draw

pytestmark = pytest.mark.skipif(library() is None, reason="needs a C++ compiler")

SHAPES = [(32, 288), (32, 4096), (32, 324), (32, 32), (4, 32), (64, 500), (288, 32), (1, 7), (5, 1)]


def decaying(shape: tuple[int, int], decay: float) -> Tensor:
    """Return a matrix whose singular values are powers of ``decay``."""
    left, _, right = torch.linalg.svd(draw(0, shape, torch.float64), full_matrices=False)
    return 7 * (left * decay ** torch.arange(left.shape[1])) @ right


def stepped(gradient: Tensor) -> Tensor:
    """Return the step of a kernel of zeros after one gradient, at rate 1 and without momentum."""
    kernel, average = torch.zeros(gradient.shape), torch.zeros(gradient.shape)
    compiled_muon.step([kernel], [gradient.float()], [average], lr=1.0, momentum=0.0, rounds=ROUNDS)
    torch.testing.assert_close(average, gradient.float())
    return -kernel


@pytest.mark.parametrize("decay", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("shape", SHAPES)
def test_step_is_the_orthogonalised_gradient(shape: tuple[int, int], decay: float) -> None:
    gradient = decaying(shape, decay)
    expected = orthogonalised(gradient[None])[0] * max(1, shape[0] / shape[1]) ** 0.5
    error = (stepped(gradient).double() - expected).norm() / expected.norm()
    assert float(error) < 5e-3, "rounding of the Gram matrix; products in bf16 have errors of 0.3"


@pytest.mark.parametrize("scale", [1e-8, 1e15])
def test_scale_of_the_gradient_does_not_matter(scale: float) -> None:
    gradient = draw(1, (16, 40), torch.float64)
    torch.testing.assert_close(stepped(scale * gradient), stepped(gradient), rtol=1e-4, atol=1e-4)


def test_number_of_rounds_is_checked() -> None:
    with pytest.raises(ValueError, match="rounds must be a whole number of at least 1, got 0"):
        compiled_muon.step([torch.zeros(2, 2)], [torch.ones(2, 2)], [torch.zeros(2, 2)], 0.1, 0.9, 0)


def test_kernel_without_gradient_stays() -> None:
    assert torch.equal(stepped(torch.zeros(8, 20)), torch.zeros(8, 20))


def parameters(layout: torch.memory_format) -> list[nn.Parameter]:
    shapes = [(12, 6, 3, 3), (12, 16, 3, 3), (3, 12, 1, 1), (12, 4, 1, 1)]
    return [nn.Parameter(draw(k, shape, torch.float32).to(memory_format=layout)) for k, shape in enumerate(shapes)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_equal_those_of_torch_up_to_rounding(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for compiled in (True, False):
        with monkeypatch.context() as patched:
            if not compiled:
                patched.setattr(compiled_muon, "can_step", lambda _: False)
            own = parameters(layout)
            optimizer = Muon(own, lr=0.1, momentum=0.7, precision="fp32")
            for seed in range(4):
                for k, p in enumerate(own):
                    p.grad = draw(10 * seed + k, p.shape, torch.float32).to(memory_format=layout)
                optimizer.step()
            made.append([*own, *(optimizer.state[p]["momentum_buffer"] for p in own)])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-3, atol=1e-3)
        assert one.stride() == other.stride()


def test_gradients_and_averages_may_have_another_layout() -> None:
    """As after loading a checkpoint."""
    kernel = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    gradient = draw(3, kernel.shape, torch.float32)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        own, average = kernel.clone(), torch.zeros(kernel.shape).to(memory_format=layout)
        compiled_muon.step([own], [gradient.to(memory_format=layout)], [average], 0.1, 0.9, ROUNDS)
        torch.testing.assert_close(average, 0.1 * gradient)
        found.append(own)
    assert torch.equal(*found)


def test_number_of_threads_does_not_change_the_result() -> None:
    gradients = [draw(k, (96, 800), torch.float32) for k in range(8)]
    found = []
    for threads in (1, 3):
        kernels, averages = ([torch.zeros(96, 800) for _ in gradients] for _ in range(2))
        with threads_here(threads):
            compiled_muon.step(kernels, gradients, averages, 0.1, 0.9, ROUNDS)
        found.append(torch.stack(kernels))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("kernel", "supported"),
    [
        (torch.zeros(8, 4, 3, 3), True),
        (torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last), True),
        (torch.zeros(500, 64), True),
        (torch.zeros(500, 65), False),
        (torch.zeros(32, 4096), True),
        (torch.zeros(32, 4097), False),
        (torch.zeros(8, 4, dtype=torch.float64), False),
        (torch.zeros(8, 4, dtype=torch.bfloat16), False),
        (torch.zeros(8, 4).T, False),
        (torch.zeros(8, 8, 3, 3)[:, ::2], False),
        (torch.zeros(8, 0), False),
        (torch.zeros(8, 4, device="meta"), False),
    ],
)
def test_supported_kernels(kernel: Tensor, supported: bool) -> None:
    assert compiled_muon.can_step([torch.zeros(2, 2), kernel]) == supported
