"""Images as the output of an untrained skip U-Net (Eq. 9), the architecture of deep image prior [Ulyanov et al., 2018].

Shapes: K problems, C channels, H×W pixels; the network works at H'×W', the next multiples of ``2**scales`` of at least
``2**(scales + 1)``, and its output is cropped.
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
from dop_lightning.model.signals.abilities import Guided, Perturbed
from dop_lightning.model.signals.network import NetworkSignal
from dop_lightning.model.signals.unet import kernels
from dop_lightning.model.signals.unet.fused_unet import Operations, fused_forward
from dop_lightning.model.signals.unet.skip_network import SCALES, skip_network, working_size
from dop_lightning.model.signals.unet.streams import side_by_side
from dop_lightning.model.signals.unet.triton_kernels.available import are_usable
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream

GUIDE = 0.5
"""What an estimate in the input is multiplied by: z is in [0, 0.1], and a network that sees more of it copies it."""


class SkipUNet(NetworkSignal):
    r"""``X = φ(θ)``, K untrained skip U-Nets, one a problem.

    The input of each is ``z ~ U(0, 0.1)``, kept fixed, plus fresh ``N(0, perturbation²)`` at every iteration. θ starts
    at PyTorch's default initialisation, drawn from the problem's own stream. The scored image is the output for the
    perturbed input, as in the authors' code.

    Any image size works: z is made larger, φ is cropped.

    Args:
        problems: the batch, of images C×H×W with values in [0, 1].
        width: channels of every scale, at least 1 (the paper has 128, and 64 to 192 in Fig. 1b).
        scales: number of scales, at least 1.
        input_channels: channels of z.
        skip_width: channels of a skip branch.
        perturbation: standard deviation of the noise added to z, at least 0; the authors' code has 1/30.
        precision: ``fp32``, ``bf16`` (inside the network only: parameters, output and loss stay float32), or ``auto``:
            bf16 where the processor has units for it. On a GPU convolutions in fp32 may use TF32 units, PyTorch's
            default (``torch.backends.cudnn.allow_tf32``); products of matrices, which are no networks, do not.
        bias: whether convolutions that a batch norm follows have a bias, as those of the authors' code. The norm takes
            it out again; it costs time, and optimizers that normalise their steps let it drift.
        fused: run the network by compiled kernels that do in one pass or two what plain operations do in many; the same
            but for rounding. On a CPU they are in C++ (:mod:`dop_lightning.model.signals.unet.kernels`), on a GPU in
            Triton (:mod:`dop_lightning.model.signals.unet.triton_kernels`). Without a C++ compiler or Triton, and in
            float64, plain operations are used.
        compile: let ``torch.compile`` merge the layers, in place of ``fused``: a minute more at the start, which pays
            for long runs on a GPU; on a CPU it was slower. Scores then come from the network as it is, and agree with
            what is descended but for rounding.

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
    ) -> None:
        if len(problems.signal_shape) != 3:
            raise ValueError(f"SkipUNet needs images, C×H×W, got a signal of shape {problems.signal_shape}")
        for name, value in (("width", width), ("scales", scales), ("skip_width", skip_width)):
            at_least(name, value, 1)
        at_least("input_channels", input_channels, 1)
        not_negative("perturbation", perturbation)
        one_of("precision", precision, ["auto", "bf16", "fp32"])
        channels = problems.signal_shape[0]

        def network(_: tuple[int, ...], generator: torch.Generator | None = None) -> nn.Module:
            return skip_network(channels, width, scales, input_channels, skip_width, bias, generator)

        super().__init__(problems, network)
        for weight in self.networks.parameters():  # as Module.to(memory_format=...), which takes three times as long
            if weight.dim() == 4:
                weight.data = weight.data.to(memory_format=torch.channels_last)
        self.input_channels = input_channels
        self.perturbation = perturbation
        self.dtype = problems.dtype
        wanted = precision == "bf16" or (precision == "auto" and has_bfloat16_units(problems.device))
        self.bf16 = wanted and self.dtype == torch.float32
        self.fused = fused and not compile and self.dtype == torch.float32
        self.image_size = problems.signal_shape[1:]
        self.working_size = working_size(self.image_size, scales)
        # beside the networks: in their place they would give the parameters other names
        self._compiled: dict[int, Callable[[Tensor], Tensor]] | None = {} if compile else None
        self.prepared: tuple[Tensor, ...] = ()
        self._prepared_for: int | None = None
        self._factors: Tensor | None = None  # of the perturbation, see calm_by
        self._guides: Tensor | None = None  # estimates in the inputs, see guide_by

    def _make_network(self, network: Callable[..., nn.Module], problem: Problem) -> nn.Module:
        """The network of a problem, from a generator of its own: threads do not wait for each other."""
        return network(self.shape, stream(problem.seed, "init"))

    def _working_buffer(self, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """An empty H'×W'×channels array: channels last, the layout the convolutions want."""
        return torch.empty(*self.working_size, self.input_channels, dtype=dtype, device=device)

    def draw_input(self, k: int) -> tuple[Tensor, ...]:
        """The fixed input z of network k, H'×W'×channels."""
        z = self._working_buffer(self.dtype, "cpu")
        return (z.uniform_(0.0, 0.1, generator=stream(self.problems[k].seed, "init", 3)),)

    def forward(self, iteration: int = 0) -> Tensor:
        """``φ(θ)`` for the input perturbed as at ``iteration``, ``(K, C, H, W)``."""
        top, left = ((w - s) // 2 for w, s in zip(self.working_size, self.image_size, strict=True))
        height, width = self.image_size

        def image(k: int) -> Tensor:
            z = self.prepared[k] if iteration == self._prepared_for else self._perturbed(k, iteration)
            z = z.permute(2, 0, 1).unsqueeze(0)  # 1 input_channels H' W', channels last in memory
            logits = self._logits(k, z)
            # the sigmoid in float32: eight bits of mantissa would show in an image
            return torch.sigmoid(logits.to(self.dtype)[..., top : top + height, left : left + width])

        images = side_by_side([partial(image, k) for k in range(self.size)], next(self.networks.parameters()).device)
        return torch.cat(images) if len(images) > 1 else images[0]

    def _perturbed(self, k: int, iteration: int, out: Tensor | None = None) -> Tensor:
        """The input of network k at an iteration, H'×W'×channels, in ``out`` if it is given and anything is drawn."""
        (z,) = self.input_of(k)
        if self.perturbation == 0:
            return z if self._guides is None else self._guide_(k, z.clone(), z)
        generator = stream(self.problems[k].seed, "perturbation", iteration, device=z.device)
        noise = self._working_buffer(z.dtype, z.device) if out is None else out
        std = self.perturbation * (1.0 if self._factors is None else float(self._factors[k]))
        perturbed = noise.normal_(0.0, std, generator=generator).add_(z)
        return perturbed if self._guides is None else self._guide_(k, perturbed, z)

    def _guide_(self, k: int, given: Tensor, z: Tensor) -> Tensor:
        """An input with ``GUIDE·estimate`` in place of the first channels of z."""
        assert self._guides is not None
        estimate = self._guides[k]
        margins = [w - s for w, s in zip(self.working_size, self.image_size, strict=True)]
        (top, left), channels = [margin // 2 for margin in margins], estimate.shape[0]
        sides = (left, margins[1] - left, top, margins[0] - top)
        around = pad(estimate[None], sides, mode="replicate")[0] if any(sides) else estimate
        given[..., :channels].add_(around.permute(1, 2, 0), alpha=GUIDE).sub_(z[..., :channels])
        return given

    @property
    def guided(self) -> Guided | None:
        """Itself, if the input has channels enough that half of them stay random."""
        return self if 2 * self.shape[0] <= self.input_channels else None

    def guide_by(self, estimates: Tensor) -> None:
        """Put ``GUIDE·estimate`` in the place of the first channels of z."""
        self._guides = estimates

    @property
    def perturbed(self) -> Perturbed:
        """Itself."""
        return self

    def calm_by(self, factors: Tensor) -> None:
        """Perturb the inputs by ``factors`` times as much."""
        self._factors = factors

    def prepare(self, iteration: int) -> None:
        """Draw the inputs of an iteration ahead."""
        drawn = self.prepared or [None] * self.size
        self.prepared = tuple(self._perturbed(k, iteration, out) for k, out in enumerate(drawn))
        self._prepared_for = iteration

    def release(self) -> None:
        """Let go of the inputs."""
        super().release()
        self.prepared, self._prepared_for = (), None

    def _logits(self, k: int, z: Tensor) -> Tensor:
        """The output of network k before the sigmoid, ``(1, C, H', W')``."""
        network = cast(nn.Sequential, self.networks[k])
        operations = self._operations(network, z)
        if operations is not None:
            with torch.autocast(z.device.type, enabled=False):  # whatever is around
                return fused_forward(network, z, self._activations, operations)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
            return self._plain_logits(k, network, z.bfloat16() if self.bf16 else z)  # cast once, before padding

    @property
    def _activations(self) -> torch.dtype:
        """The type of what is between the layers, if they are fused."""
        return torch.bfloat16 if self.bf16 else torch.float32

    def _operations(self, network: nn.Module, z: Tensor) -> Operations | None:
        """What fuses the layers on this device, if anything does."""
        if not self.fused or z.dtype != torch.float32:
            return None
        if z.device.type == "cpu":
            return kernels if kernels.library() is not None else None
        if are_usable(z.device):
            from dop_lightning.model.signals.unet.triton_kernels.network import TritonOperations

            return TritonOperations(network, self._activations)
        return None

    def _plain_logits(self, k: int, network: nn.Module, z: Tensor) -> Tensor:
        """The same by torch, compiled if that is asked for."""
        if self._compiled is None or not torch.is_grad_enabled():  # not to be compiled again for evaluations
            return network(z)
        try:
            if k not in self._compiled:
                self._compiled[k] = torch.compile(network, dynamic=False)
            return self._compiled[k](z)
        except Exception as error:  # of any kind: compilers are many
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"the network is not compiled: {type(error).__name__}: {reason}", RuntimeWarning, stacklevel=2
            )
            self._compiled = None
        return network(z)
