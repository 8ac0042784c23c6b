"""The network by kernels against the same by plain operations."""

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.model.signals import SkipUNet
from dop_lightning.model.signals.unet import kernels, skip_unet
from dop_lightning.model.signals.unet.fused_unet import Operations, fused_forward
from dop_lightning.model.signals.unet.kernels import convolution
from dop_lightning.model.signals.unet.skip_network import skip_network
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import draw

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="needs a C++ compiler")


def output_and_gradients(network: nn.Sequential, output: Tensor) -> list[Tensor]:
    network.zero_grad()
    output.float().sigmoid().mul(draw(7, output.shape).float()).sum().backward()
    return [output.detach().float(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("width", "skip_width", "scales", "size"), [(8, 4, 3, (32, 48)), (17, 1, 2, (16, 8)), (6, 20, 1, (4, 6))]
)
def test_outputs_and_gradients_agree(
    width: int, skip_width: int, scales: int, size: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    network = skip_network(3, width, scales, 5, skip_width, bias)
    z = draw(1, (1, 5, *size)).float()
    plain = output_and_gradients(network, network(z))
    fused = output_and_gradients(network, fused_forward(network, z, torch.float32, kernels))
    assert len(fused) == len(plain)
    for a, b in zip(fused, plain, strict=True):
        # a bias that a norm takes out again has no gradient but rounding
        assert float((a - b).norm()) < 1e-3 * float(b.norm()) + 1e-4
    half = fused_forward(network, z, torch.bfloat16, kernels)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.detach().float(), plain[0], rtol=0, atol=0.1)


def signal(**options) -> SkipUNet:
    problems = ProblemBatch([Problem("one", draw(0, (3, 20, 36)).float().sigmoid(), seed=3)])
    return SkipUNet(problems, width=6, scales=2, precision="fp32", **options)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The types in which networks were run by kernels."""
    seen: list[torch.dtype] = []

    def run(network: nn.Sequential, z: Tensor, dtype: torch.dtype, operations: Operations) -> Tensor:
        assert operations is kernels
        seen.append(dtype)
        return fused_forward(network, z, dtype, operations)

    monkeypatch.setattr(skip_unet, "fused_forward", run)
    return seen


def test_kernels_run_supported_layers(runs: list[torch.dtype]) -> None:
    signal()(0)
    assert runs == [torch.float32]
    for other in (signal(fused=False), signal(compile=True), signal(perturbation=0.0).double()):
        with torch.no_grad():
            other(0)
    assert runs == [torch.float32]


def test_large_convolutions_are_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = skip_network(3, 17, 2, 5, 1, True)
    z = draw(1, (1, 5, 16, 8)).float()
    whole = output_and_gradients(network, fused_forward(network, z, torch.bfloat16, kernels))
    monkeypatch.setattr(convolution, "STRIP", 1000)
    assert convolution.strips_of(torch.empty(1, 18, 18, 10, dtype=torch.bfloat16), 3) > 1
    strips = output_and_gradients(network, fused_forward(network, z, torch.bfloat16, kernels))
    assert any(not torch.equal(a, b) for a, b in zip(strips, whole, strict=True))
    for (name, _), a, b in zip([("", None), *network.named_parameters()], strips, whole, strict=True):
        if "bias" not in name:  # those that a norm takes out again have no gradient but rounding
            assert float((a - b).norm()) < 2e-2 * float(b.norm())


def test_fused_results_differ_by_rounding_only(runs: list[torch.dtype]) -> None:
    torch.testing.assert_close(signal()(4), signal(fused=False)(4), rtol=1e-4, atol=1e-4)
    assert len(runs) == 1


def test_surrounding_autocast_has_no_effect() -> None:
    fused = signal()
    expected = fused(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fused(0), expected)


def test_double_precision_uses_plain_operations() -> None:
    torch.testing.assert_close(
        signal(perturbation=0.0).double()(0).float(), signal(perturbation=0.0)(0), rtol=1e-3, atol=1e-3
    )
