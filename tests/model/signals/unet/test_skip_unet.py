"""The skip U-Net: its architecture against one written out from the description, its input, sizes and precision."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dop_lightning.foundation.machine import has_bfloat16_units
from dop_lightning.model.signals import Signal, SkipUNet
from dop_lightning.model.signals.unet import kernels
from dop_lightning.model.signals.unet.kernels import library
from dop_lightning.model.signals.unet.skip_network import Convolution, Scale, Upsample, skip_network
from dop_lightning.model.signals.unet.skip_unet import GUIDE_FACTOR
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream
from tests.suites.part import assert_same_bits, draw
from tests.suites.signal import SignalSuite


class TestPlainSkipUNet(SignalSuite):
    forward_depends_on_seed = True
    fused = False

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 9, 12)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return SkipUNet(problems, width=3, scales=2, input_channels=4, skip_width=2, fused=self.fused)


@pytest.mark.skipif(kernels.library() is None, reason="needs a C++ compiler")
class TestSkipUNet(TestPlainSkipUNet):
    """By kernels, which are for float32."""

    fused = True

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 9, 12), torch.float32), seed=seed)

    test_gradient_agrees_with_finite_differences = None  # float32 is too coarse: see test_fused_unet.py
    test_parameters_have_the_type_of_the_problems = None

    def test_kernels_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dop_lightning.model.signals.unet.skip_unet.fused_forward", lambda *_: pytest.fail("used"))
        with pytest.raises(pytest.fail.Exception, match="used"):
            self.make(ProblemBatch([self.problem(0, "one")]))(0)


def batch(*shape: int, K: int = 1, dtype: torch.dtype = torch.float32) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, shape, dtype), seed=k) for k in range(K)])


def small(problems: ProblemBatch, **options) -> SkipUNet:
    return SkipUNet(
        problems, **{"width": 4, "scales": 2, "input_channels": 3, "precision": "fp32", "fused": False, **options}
    )


def network_input(signal: SkipUNet, iteration: int, k: int = 0) -> Tensor:
    """What network k is given at ``iteration``, ``(1, input_channels, H', W')``."""
    seen: list[Tensor] = []
    hook = signal.networks[k].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    signal(iteration)
    hook.remove()
    return seen[0]


# ---------------------------------------------------------------------------------------------------- architecture


def reference_output(weights: Mapping[str, Tensor], z: Tensor, scales: int) -> Tensor:
    """The network of deep image prior in functional form: ``(1, input_channels, H, W)`` to the logits."""

    def conv(x: Tensor, name: str, kernel: int, stride: int = 1) -> Tensor:
        if kernel == 3:
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        assert weights[f"{name}.weight"].shape[2:] == (kernel, kernel)
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=stride)

    def norm(x: Tensor, name: str) -> Tensor:
        """By the statistics of this one image."""
        mean, variance = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True, correction=0)
        gain, shift = (weights[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift

    def activated(x: Tensor, name: str, kernel: int, stride: int = 1) -> Tensor:
        x = norm(conv(x, f"{name}.0", kernel, stride), f"{name}.1")
        return torch.where(x > 0, x, 0.2 * x)

    def scale(x: Tensor, name: str, left: int) -> Tensor:
        skip = activated(x, f"{name}.skip", 1)
        below = activated(x, f"{name}.down.0", 3, stride=2)
        below = activated(below, f"{name}.down.1", 3)
        if left > 1:
            below = scale(below, f"{name}.deeper", left - 1)
        below = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        joined = norm(torch.cat([skip, below], dim=1), f"{name}.norm")
        return activated(activated(joined, f"{name}.merge.0", 3), f"{name}.merge.1", 1)

    return conv(scale(z, "0", scales), "1", 1)


@pytest.mark.parametrize(("scales", "size"), [(1, (4, 6)), (2, (8, 12)), (3, (24, 16))])
def test_network_has_the_documented_layers(scales: int, size: tuple[int, int]) -> None:
    network = skip_network(channels=3, width=5, scales=scales, input_channels=4, skip_width=2).double()
    for number, p in enumerate(network.parameters()):  # also gains and shifts, which start at 1 and 0
        p.data = p.data + 0.1 * draw(number, p.shape)
    z = draw(99, (1, 4, *size))
    expected = reference_output(dict(network.named_parameters()), z, scales)
    assert expected.shape == (1, 3, *size)
    torch.testing.assert_close(network(z), expected, rtol=1e-9, atol=1e-9)


def test_output_is_the_sigmoid_of_the_network_cropped_to_its_middle() -> None:
    signal = small(batch(3, 9, 14, dtype=torch.float64))
    assert signal.working_size == [12, 16]
    with torch.no_grad():
        z = network_input(signal, 5)
        logits = reference_output(dict(signal.networks[0].named_parameters()), z, scales=2)
        expected = 1 / (1 + (-logits[..., 1:10, 1:15]).exp())
        torch.testing.assert_close(signal(5), expected, rtol=1e-9, atol=1e-9)


def test_number_of_parameters_equals_that_of_the_authors() -> None:
    signal = SkipUNet(batch(3, 64, 64))
    assert sum(p.numel() for p in signal.parameters()) == 2_217_831


def test_layers() -> None:
    network = skip_network(channels=3, width=6, scales=5, input_channels=32, skip_width=4)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 5 * 5 + 1
    assert all(m.bias is not None and m.padding_mode == "reflect" for m in convolutions if m.kernel_size == (3, 3))
    assert sum(m.stride == (2, 2) for m in convolutions) == 5
    assert all(m.negative_slope == 0.2 for m in network.modules() if isinstance(m, nn.LeakyReLU))
    assert sum(isinstance(m, nn.LeakyReLU) for m in network.modules()) == len(convolutions) - 1
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(convolutions) - 1 + 5  # and one for each concatenation
    assert all(m.running_mean is None and not m.track_running_stats for m in norms)
    assert isinstance(network[-1], nn.Conv2d)
    assert network[-1].out_channels == 3


@pytest.mark.parametrize("options", [{"width": 7}, {"scales": 3}, {"input_channels": 5}, {"skip_width": 3}])
def test_widths_and_scales_are_the_requested_ones(options: dict[str, int]) -> None:
    asked = {"width": 4, "scales": 2, "input_channels": 3, "skip_width": 4, **options}
    signal = SkipUNet(batch(2, 8, 8), **asked)
    shapes = {name: tuple(p.shape) for name, p, _ in signal.problem_parameters(0)}
    width, skip = asked["width"], asked["skip_width"]
    assert shapes["0.down.0.0.weight"] == (width, asked["input_channels"], 3, 3)
    assert shapes["0.skip.0.weight"] == (skip, asked["input_channels"], 1, 1)
    assert shapes["0.deeper.down.0.0.weight"] == (width, width, 3, 3)
    assert shapes["0.deeper.skip.0.weight"] == (skip, width, 1, 1)
    assert shapes["0.merge.0.0.weight"] == (width, skip + width, 3, 3)
    assert shapes["0.merge.1.0.weight"] == (width, width, 1, 1)
    assert shapes["1.weight"] == (2, width, 1, 1)
    deepest = "0." + "deeper." * (asked["scales"] - 1)
    assert f"{deepest}down.0.0.weight" in shapes
    assert f"{deepest}deeper.down.0.0.weight" not in shapes


def test_start_is_the_default_of_the_layers_from_the_stream_of_the_problem() -> None:
    signal = small(batch(3, 8, 8, K=2))
    for k in range(2):
        before = torch.get_rng_state()
        torch.default_generator.set_state(stream(k, "init").get_state())
        network = skip_network(channels=3, width=4, scales=2, input_channels=3, skip_width=4)
        torch.set_rng_state(before)
        assert_same_bits(signal.problem_state(k), dict(network.named_parameters()))


# ----------------------------------------------------------------------------------------------- sizes and channels


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (37, 51), (64, 64), (1, 1), (96, 33)])
def test_any_size(size: tuple[int, int], channels: int) -> None:
    problems = batch(channels, *size, K=2)
    signal = SkipUNet(problems, width=2, input_channels=2)  # at the default five scales
    with torch.no_grad():
        X = signal.evaluate(0)
        signal.pull_back(torch.ones_like(X), 1.0)
    assert X.shape == (2, channels, *size)
    assert torch.isfinite(X).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in signal.parameters())


@pytest.mark.parametrize(
    ("size", "working"), [((8, 8), (64, 64)), ((64, 65), (64, 96)), ((96, 128), (96, 128)), ((37, 97), (64, 128))]
)
def test_working_size_is_the_next_multiple(size: tuple[int, int], working: tuple[int, int]) -> None:
    signal = SkipUNet(batch(1, *size), width=1, input_channels=1, fused=False)
    assert network_input(signal, 0).shape == (1, 1, *working)


# ------------------------------------------------------------------------------------------------------------ input


def test_input_is_uniform_up_to_a_tenth() -> None:
    signal = small(batch(3, 64, 64), perturbation=0.0, input_channels=8)
    z = network_input(signal, 0)
    assert 0 <= float(z.min()) < 1e-4
    assert 0.1 - 1e-4 < float(z.max()) <= 0.1
    assert abs(float(z.mean()) - 0.05) < 0.001
    assert abs(float(z.std()) - 0.1 / 12**0.5) < 0.001


def test_input_is_fixed_without_perturbation() -> None:
    signal = small(batch(3, 8, 8), perturbation=0.0)
    assert torch.equal(network_input(signal, 0), network_input(signal, 1))
    assert torch.equal(signal(0), signal(1))


@pytest.mark.skipif(library() is None, reason="needs a C++ compiler")
def test_fast_noise_is_another_draw_of_the_same_size() -> None:
    still, plain, fast = (
        small(batch(3, 64, 64), **options) for options in ({"perturbation": 0.0}, {}, {"fast_noise": True})
    )
    noise = [network_input(signal, 3) - network_input(still, 3) for signal in (plain, fast)]
    assert not torch.equal(*noise)
    assert float(noise[1].std()) == pytest.approx(1 / 30, rel=0.02)
    assert torch.equal(network_input(fast, 3), network_input(fast, 3))
    assert not torch.equal(network_input(fast, 3), network_input(fast, 4))


def test_perturbation_is_fresh_in_every_iteration() -> None:
    still, signal = small(batch(3, 64, 64), perturbation=0.0), small(batch(3, 64, 64))
    z = network_input(still, 0)
    one, other = network_input(signal, 1) - z, network_input(signal, 2) - z
    for noise in (one, other):
        assert abs(float(noise.mean())) < 0.002
        assert abs(float(noise.std()) * 30 - 1) < 0.03  # 12 288 draws of N(0, 1/30²)
    correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.05
    assert torch.equal(network_input(signal, 1), network_input(small(batch(3, 64, 64)), 1))


@pytest.mark.parametrize("perturbation", [0.0, 0.03])
def test_guide_is_in_the_first_channels_of_the_input(perturbation: float) -> None:
    problems = batch(3, 9, 12, K=2)
    plain, guided = (SkipUNet(problems, width=3, scales=2, perturbation=perturbation) for _ in range(2))
    assert guided.guided is guided
    guides = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    guided.guide_by(guides)
    (z,) = plain.input_of(1)
    before, after = plain._perturbed(1, 5), guided._perturbed(1, 5)
    top, left = ((side - size) // 2 for side, size in zip(z.shape, (9, 12), strict=False))
    inside = (slice(top, top + 9), slice(left, left + 12), slice(3))
    expected = before[inside] - z[inside] + GUIDE_FACTOR * guides[1].permute(1, 2, 0)
    torch.testing.assert_close(after[inside], expected)
    assert torch.equal(after[..., 3:], before[..., 3:])
    kept = after.clone()
    guided.release()  # inputs may be drawn again
    assert torch.equal(guided._perturbed(1, 5), kept)
    with torch.inference_mode():
        before_change = guided._perturbed(1, 5).clone()
    assert torch.equal(before_change, kept)
    guides.zero_()  # what is changed in it counts
    assert not torch.equal(guided._perturbed(1, 5), kept)


def test_half_of_the_input_stays_random() -> None:
    problems = batch(3, 9, 12)
    assert SkipUNet(problems, width=3, scales=2, input_channels=6).guided is not None
    assert SkipUNet(problems, width=3, scales=2, input_channels=5).guided is None


def test_problems_have_separate_inputs() -> None:
    signal = small(batch(3, 8, 8, K=2))
    assert not torch.equal(network_input(signal, 0, k=0), network_input(signal, 0, k=1))
    still = small(batch(3, 8, 8, K=2), perturbation=0.0)
    assert not torch.equal(network_input(still, 0, k=0), network_input(still, 0, k=1))


def test_input_has_a_separate_stream() -> None:
    z = network_input(small(batch(3, 8, 8), perturbation=0.0), 0)[0].permute(1, 2, 0)  # H' W' input_channels, as drawn
    for taken in ((), (1,), (2,)):  # θ, g and h of the same seed
        assert not torch.equal(z, torch.empty(8, 8, 3).uniform_(0.0, 0.1, generator=stream(0, "init", *taken)))
    assert torch.equal(z, torch.empty(8, 8, 3).uniform_(0.0, 0.1, generator=stream(0, "init", 3)))


# ------------------------------------------------------------------------------------------------ modes and precision


def test_evaluation_mode_equals_training_mode() -> None:
    signal = small(batch(3, 16, 16))
    training = signal.train()(3)
    assert torch.equal(signal.eval()(3), training)
    assert torch.equal(signal.train()(3), training)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_output_and_gradients_are_float32(precision) -> None:
    signal = small(batch(3, 8, 8), precision=precision)
    with torch.no_grad():
        X = signal.evaluate(0)
        signal.pull_back(torch.ones_like(X), 1.0)
    assert X.dtype == torch.float32
    assert ((X >= 0) & (X <= 1)).all()
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in signal.parameters())


def test_bf16_is_close_to_fp32_at_the_start() -> None:
    problems = batch(3, 16, 16)
    exact, rough = small(problems, precision="fp32"), small(problems, precision="bf16")
    assert_same_bits(exact.problem_state(0), rough.problem_state(0))
    difference = (exact(0) - rough(0)).abs()
    assert 0 < float(difference.detach().max()) < 0.05
    assert float(difference.detach().mean()) < 0.01


def test_float64_precision_is_not_reduced() -> None:
    problems = batch(3, 8, 8, dtype=torch.float64)
    assert torch.equal(small(problems, precision="bf16")(0), small(problems, precision="fp32")(0))


def test_auto_is_bf16_on_processors_with_bf16_units() -> None:
    problems = batch(3, 8, 8)
    chosen = "bf16" if has_bfloat16_units("cpu") else "fp32"
    assert torch.equal(small(problems, precision="auto")(0), small(problems, precision=chosen)(0))


@pytest.mark.parametrize("units", [False, True])
def test_auto_queries_the_processor(units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dop_lightning.model.signals.unet.skip_unet.has_bfloat16_units", lambda device: units)
    assert small(batch(3, 8, 8), precision="auto").bf16 is units


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("guided", [False, True])
def test_padding_and_upsampling_have_the_bits_of_version_0_1(precision: str, guided: bool) -> None:
    """1×1 convolutions padded by reflection, and upsampling was autocast."""
    outputs = []
    for before in (True, False):
        signal = small(batch(3, 16, 12), precision=precision, input_channels=6)
        if guided:
            signal.guide_by(draw(5, (1, 3, 16, 12), torch.float32))
        for module in signal.modules() if before else ():
            if isinstance(module, nn.Conv2d) and module.out_channels != 3:
                module.padding_mode = "reflect"
            if isinstance(module, Scale):
                module.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        output = signal(7)
        output.backward(draw(9, output.shape, torch.float32))
        outputs.append([output.detach(), *(p.grad for p in signal.parameters())])
    for one, other in zip(*outputs, strict=True):
        assert torch.equal(one, other)


def test_the_input_is_cast_before_it_is_padded() -> None:
    signal, z = small(batch(3, 16, 12)), draw(0, (1, 3, 16, 12), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(signal.networks[0](z), signal.networks[0](z.bfloat16()))


def test_upsampling_keeps_the_type_of_its_input() -> None:
    x = draw(0, (1, 2, 4, 6), torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            made = Upsample()(x.to(dtype))
        assert made.dtype == dtype
        assert made.shape == (1, 2, 8, 12)


def test_convolutions_of_one_pixel_do_not_pad() -> None:
    modes = {m.kernel_size: m.padding_mode for m in small(batch(3, 16, 12)).modules() if isinstance(m, nn.Conv2d)}
    assert modes == {(1, 1): "zeros", (3, 3): "reflect"}


def test_weights_are_channels_last() -> None:
    """Otherwise every convolution copies."""
    signal = small(batch(3, 8, 8))
    assert signal.networks[0][0].down[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network_input(signal, 0).is_contiguous(memory_format=torch.channels_last)


# -------------------------------------------------------------------------------------------------------- compilation


def test_a_compiled_network_keeps_the_names_of_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, signal = (small(batch(3, 8, 8), fused=False, compile=compile) for compile in (False, True))
    torch.testing.assert_close(signal(3), plain(3))
    assert_same_bits(signal.problem_state(0), plain.problem_state(0))
    assert list(signal.state_dict()) == list(plain.state_dict())


def test_networks_are_compiled_for_gradients_only(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or network)
    signal = small(batch(3, 8, 8, K=2), compile=True, fused=False)
    with torch.no_grad():
        signal(0)
    assert compiled == []
    signal.evaluate(0)
    signal.evaluate(1)
    assert compiled == list(signal.networks)


def test_network_that_fails_to_compile_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: nn.Module, **_) -> None:
        raise RuntimeError("no compiler\nwas found")

    monkeypatch.setattr(torch, "compile", fails)
    signal = small(batch(3, 8, 8, K=2), compile=True, fused=False)
    with pytest.warns(
        RuntimeWarning, match="the network was not compiled: RuntimeError: no compiler was found"
    ) as told:
        X = signal(3)
    assert len(told) == 1
    assert torch.equal(X, small(batch(3, 8, 8, K=2), fused=False)(3))
    signal(4)


def test_out_of_memory_does_not_disable_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(z: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda network, **_: short)
    with pytest.raises(torch.OutOfMemoryError):
        small(batch(3, 8, 8), compile=True, fused=False)(0)


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["width", "scales", "input_channels", "skip_width"])
@pytest.mark.parametrize("value", [0, -2, 2.5])
def test_sizes_are_checked(name: str, value) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {value}"):
        small(batch(3, 8, 8), **{name: value})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_perturbation_is_checked(value: float) -> None:
    with pytest.raises(ValueError, match="perturbation must be a finite number of at least 0"):
        small(batch(3, 8, 8), perturbation=value)


def test_precision_is_checked() -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, bf16, fp32, got 'fp16'"):
        small(batch(3, 8, 8), precision="fp16")


@pytest.mark.parametrize("shape", [(8, 8), (2, 3, 8, 8)])
def test_non_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="SkipUNet requires images, C×H×W"):
        small(batch(*shape))


def test_parameters_equal_pytorch_without_the_global_generator() -> None:
    generator = stream(5, "init")
    torch.manual_seed(generator.initial_seed())
    with torch.no_grad():
        expected = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1, bias=False)]
        before = torch.get_rng_state()
        made = [Convolution(3, 4, 3, generator), Convolution(4, 2, 1, generator, bias=False)]
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(made, expected, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
