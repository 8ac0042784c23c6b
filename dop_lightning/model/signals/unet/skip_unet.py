"""Images as the output of an untrained skip U-Net (Eq. 9), the architecture of deep image prior [Ulyanov et al., 2018].

Shapes: K problems, C channels, H×W pixels. The network processes H'×W' pixels, the next multiples of ``2**scales`` that
are at least ``2**(scales + 1)``, and its output is cropped.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dop_lightning.foundation.checks import at_least, not_negative, one_of
from dop_lightning.foundation.machine import has_bfloat16_units, is_out_of_memory
from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.model.signals.capabilities import Guided, Perturbed
from dop_lightning.model.signals.network import NetworkSignal
from dop_lightning.model.signals.unet import kernels
from dop_lightning.model.signals.unet.fused_unet import Operations, fused_forward
from dop_lightning.model.signals.unet.skip_network import SCALES, skip_network, working_size
from dop_lightning.model.signals.unet.streams import run_concurrently
from dop_lightning.model.signals.unet.triton_kernels.available import are_usable
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream, stream_seed

GUIDE_FACTOR = 0.5
"""Factor of an estimate in the input. z is in [0, 0.1], and with a larger factor the network copies the estimate."""


class SkipUNet(NetworkSignal):
    r"""``X = φ(θ)``, K untrained skip U-Nets, one per problem.

    The input of each network is a fixed ``z ~ U(0, 0.1)`` plus new noise ``N(0, perturbation²)`` at every iteration. θ
    has the default initialization of PyTorch, drawn from the stream of the problem. Scores are those of the output for
    the perturbed input, as in the authors' code.

    Images may have any size: z is enlarged and the output is cropped.

    Args:
        problems: the batch, of images C×H×W with values in [0, 1].
        width: channels of every scale, at least 1 (128 in the paper, and 64 to 192 in Fig. 1b).
        scales: number of scales, at least 1.
        input_channels: channels of z.
        skip_width: channels of the skip branches.
        perturbation: standard deviation of the noise added to z, at least 0; 1/30 in the authors' code.
        precision: ``fp32``, ``bf16`` (only inside the network: parameters, output and loss are float32), or ``auto``:
            bf16 if the processor supports it in hardware. On a GPU, convolutions in fp32 may use TF32, the default of
            PyTorch (``torch.backends.cudnn.allow_tf32``); matrix products outside of networks do not.
        bias: whether convolutions before a batch norm have a bias, as in the authors' code. The norm cancels it; it
            costs time, and drifts with optimizers that normalise their steps.
        fused: whether to use compiled kernels that replace many passes over memory by one or two. Results are the same
            up to rounding. They are in C++ on CPUs (:mod:`dop_lightning.model.signals.unet.kernels`) and in Triton on
            GPUs (:mod:`dop_lightning.model.signals.unet.triton_kernels`). Without a C++ compiler or Triton, and in
            float64, operations of PyTorch are used.
        compile: whether to use ``torch.compile`` instead of ``fused``. It takes one more minute at the start, which
            pays off for long runs on a GPU; on a CPU it was slower. Scores are computed with the uncompiled network,
            and agree with the compiled one up to rounding.
        fast_noise: whether (not by default) the perturbation is drawn by a compiled kernel
            (:mod:`dop_lightning.model.signals.unet.kernels.noise`) on a CPU. It takes half the time of PyTorch's
            generator, which is used without a C++ compiler, in float64 and on a GPU, and draws different numbers.

    Raises:
        ValueError: the signals are not images, or an argument is out of range.
    """

    capturable = True

    def __init__(
        self,
        problems: ProblemBatch,
        width: int = 128,
        scales: int = SCALES,
        input_channels: int = 32,
        skip_width: int = 4,
        perturbation: float = 1 / 30,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
        bias: bool = True,
        fused: bool = True,
        compile: bool = False,
        fast_noise: bool | None = None,
    ) -> None:
        if len(problems.signal_shape) != 3:
            raise ValueError(f"SkipUNet requires images, C×H×W, got a signal of shape {problems.signal_shape}")
        for name, value in (("width", width), ("scales", scales), ("skip_width", skip_width)):
            at_least(name, value, 1)
        at_least("input_channels", input_channels, 1)
        not_negative("perturbation", perturbation)
        one_of("precision", precision, ["auto", "bf16", "fp32"])
        channels = problems.signal_shape[0]

        def network(_: tuple[int, ...], generator: torch.Generator | None = None) -> nn.Module:
            return skip_network(channels, width, scales, input_channels, skip_width, bias, generator)

        super().__init__(problems, network)
        for weight in self.networks.parameters():  # equals Module.to(memory_format=...), which is three times slower
            if weight.dim() == 4:
                weight.data = weight.data.to(memory_format=torch.channels_last)
        self.input_channels = input_channels
        self.perturbation = perturbation
        self.dtype = problems.dtype
        wanted = precision == "bf16" or (precision == "auto" and has_bfloat16_units(problems.device))
        self.bf16 = wanted and self.dtype == torch.float32
        self.fast_noise = bool(fast_noise) and self.dtype == torch.float32
        self.fused = fused and not compile and self.dtype == torch.float32
        self.image_size = problems.signal_shape[1:]
        self.working_size = working_size(self.image_size, scales)
        # separate from the networks: replacing them would rename the parameters
        self._compiled: dict[int, Callable[[Tensor], Tensor]] | None = {} if compile else None
        self.prepared: tuple[Tensor, ...] = ()
        self._prepared_for: int | None = None
        self._factors: Tensor | None = None  # of the perturbation, see scale_perturbation
        self._guides: Tensor | None = None  # estimates in the inputs, see guide_by
        self._guided: dict[int, int] = {}  # version of the estimate in each input

    def _make_network(self, network: Callable[..., nn.Module], problem: Problem) -> nn.Module:
        """Create the network of a problem with a separate generator, so that threads do not wait for each other."""
        return network(self.shape, stream(problem.seed, "init"))

    def _working_buffer(self, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """Return an empty H'×W'×channels array: channels last, the memory layout of the convolutions."""
        return torch.empty(*self.working_size, self.input_channels, dtype=dtype, device=device)

    def draw_input(self, k: int) -> tuple[Tensor, ...]:
        """Draw the fixed input z of network k, H'×W'×channels."""
        z = self._working_buffer(self.dtype, "cpu")
        return (z.uniform_(0.0, 0.1, generator=stream(self.problems[k].seed, "init", 3)),)

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``φ(θ)`` for the perturbed input of ``iteration``, ``(K, C, H, W)``."""
        top, left = ((w - s) // 2 for w, s in zip(self.working_size, self.image_size, strict=True))
        height, width = self.image_size

        def image(k: int) -> Tensor:
            z = self.prepared[k] if iteration == self._prepared_for else self._perturbed(k, iteration)
            z = z.permute(2, 0, 1).unsqueeze(0)  # 1 input_channels H' W', channels last in memory
            logits = self._logits(k, z)
            # sigmoid in float32: with an 8-bit mantissa, rounding would be visible in images
            return torch.sigmoid(logits.to(self.dtype)[..., top : top + height, left : left + width])

        images = run_concurrently(
            [partial(image, k) for k in range(self.size)], next(self.networks.parameters()).device
        )
        return torch.cat(images) if len(images) > 1 else images[0]

    def _perturbed(self, k: int, iteration: int, out: Tensor | None = None) -> Tensor:
        """Return the input of network k at an iteration, H'×W'×channels; in ``out``, if given and noise is drawn."""
        z = self._fixed_input(k)
        if self.perturbation == 0:
            return z
        seed = self.problems[k].seed
        perturbed = self._working_buffer(z.dtype, z.device) if out is None else out
        std = self.perturbation * (1.0 if self._factors is None else float(self._factors[k]))
        if self.fast_noise and z.device.type == "cpu" and kernels.library() is not None:
            kernels.add_normal(z, std, stream_seed(seed, "perturbation", iteration), perturbed)
            return perturbed
        generator = stream(seed, "perturbation", iteration, device=z.device)
        return perturbed.normal_(0.0, std, generator=generator).add_(z)

    def _fixed_input(self, k: int) -> Tensor:
        """Return z of network k. Its first channels are replaced by ``GUIDE_FACTOR·estimate`` when that has changed."""
        (z,) = self.input_of(k)
        if self._guides is None:
            return z
        version = -1 if self._guides.is_inference() else self._guides._version  # inference tensors count no changes
        if version >= 0 and self._guided.get(k) == version:
            return z
        estimate = self._guides[k]
        margins = [w - s for w, s in zip(self.working_size, self.image_size, strict=True)]
        (top, left), channels = [margin // 2 for margin in margins], estimate.shape[0]
        sides = (left, margins[1] - left, top, margins[0] - top)
        around = pad(estimate[None], sides, mode="replicate")[0] if any(sides) else estimate
        z[..., :channels] = GUIDE_FACTOR * around.permute(1, 2, 0)
        self._guided[k] = version
        return z

    @property
    def guided(self) -> Guided | None:
        """The signal itself if at least half of the input channels remain random, otherwise ``None``."""
        return self if 2 * self.shape[0] <= self.input_channels else None

    def guide_by(self, estimates: Tensor) -> None:
        """Replace the first channels of z by ``GUIDE_FACTOR·estimate``."""
        self._guides, self._guided = estimates, {}

    @property
    def perturbed(self) -> Perturbed:
        """The signal itself."""
        return self

    def scale_perturbation(self, factors: Tensor) -> None:
        """Multiply the perturbation of the inputs by ``factors``."""
        self._factors = factors

    def prepare(self, iteration: int) -> None:
        """Draw the inputs of an iteration in advance."""
        drawn = self.prepared or [None] * self.size
        self.prepared = tuple(self._perturbed(k, iteration, out) for k, out in enumerate(drawn))
        self._prepared_for = iteration

    def release(self) -> None:
        """Free the inputs."""
        super().release()
        self._guided = {}
        self.prepared, self._prepared_for = (), None

    def _logits(self, k: int, z: Tensor) -> Tensor:
        """Return the output of network k before the sigmoid, ``(1, C, H', W')``."""
        network = cast(nn.Sequential, self.networks[k])
        operations = self._operations(network, z)
        if operations is not None:
            with torch.autocast(z.device.type, enabled=False):  # ignore surrounding autocast blocks
                return fused_forward(network, z, self._activations, operations)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
            return self._plain_logits(k, network, z.bfloat16() if self.bf16 else z)  # cast once, before padding

    @property
    def _activations(self) -> torch.dtype:
        """Dtype of activations if the layers are fused."""
        return torch.bfloat16 if self.bf16 else torch.float32

    def _operations(self, network: nn.Module, z: Tensor) -> Operations | None:
        """Return the fused operations of the device, or ``None`` if there are none."""
        if not self.fused or z.dtype != torch.float32:
            return None
        if z.device.type == "cpu":
            return kernels if kernels.library() is not None else None
        if are_usable(z.device):
            from dop_lightning.model.signals.unet.triton_kernels.network import TritonOperations

            return TritonOperations(network, self._activations)
        return None

    def _plain_logits(self, k: int, network: nn.Module, z: Tensor) -> Tensor:
        """Return the same with operations of PyTorch, compiled if requested."""
        if self._compiled is None or not torch.is_grad_enabled():  # avoid another compilation for evaluations
            return network(z)
        try:
            if k not in self._compiled:
                self._compiled[k] = torch.compile(network, dynamic=False)
            return self._compiled[k](z)
        except Exception as error:  # compilers raise many types
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"the network was not compiled: {type(error).__name__}: {reason}", RuntimeWarning, stacklevel=2
            )
            self._compiled = None
        return network(z)

    # Old names, until version 0.3.
    calm_by = RenamedAttribute("scale_perturbation")
