"""Images as the output of an untrained skip U-Net (Eq. 9), the architecture of deep image prior [Ulyanov et al., 2018].

Shapes: K problems, C channels, H×W pixels; the network works at H'×W', the next multiples of ``2**scales`` of at least
``2**(scales + 1)``, and its output is cropped.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dop_lightning.checks import at_least, not_negative, one_of
from dop_lightning.problems import ProblemBatch
from dop_lightning.randomness import stream
from dop_lightning.runtime import has_bfloat16_units
from dop_lightning.signals.network import NetworkSignal

SCALES = 5
"""Of the paper's network."""


def working_size(size: Sequence[int], scales: int = SCALES) -> list[int]:
    """[H', W'], at which a network of so many scales works for an image of H×W pixels.

    >>> working_size([300, 451]), working_size([8, 8])
    ([320, 480], [64, 64])
    """
    multiple = 2**scales
    return [max(-(-side // multiple) * multiple, 2 * multiple) for side in size]


def _activated(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution with reflection padding and bias, batch norm by the batch's own statistics, LeakyReLU(0.2)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, padding_mode="reflect"),
        nn.BatchNorm2d(outputs, track_running_stats=False),  # one image is the batch, also when it is scored
        nn.LeakyReLU(0.2),
    )


class Scale(nn.Module):
    """One scale of the U-Net and, inside it, the deeper ones.

    ``skip: 1×1 conv to skip_width`` beside ``down: 3×3 stride 2, 3×3 → deeper scale → bilinear ×2``; the two are
    concatenated (skip first), normalised, and merged by a 3×3 and a 1×1 convolution.
    """

    def __init__(self, inputs: int, width: int, skip_width: int, deeper: "Scale | None") -> None:
        super().__init__()
        self.skip = _activated(inputs, skip_width, 1)
        self.down = nn.Sequential(_activated(inputs, width, 3, stride=2), _activated(width, width, 3))
        self.deeper = deeper
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.norm = nn.BatchNorm2d(skip_width + width, track_running_stats=False)
        self.merge = nn.Sequential(_activated(skip_width + width, width, 3), _activated(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(1, inputs, H, W)`` to ``(1, width, H, W)``."""
        below = self.down(x)  # 1 width H/2 W/2
        if self.deeper is not None:
            below = self.deeper(below)
        joined = torch.cat([self.skip(x), self.up(below)], dim=1)  # 1 (skip_width + width) H W
        return self.merge(self.norm(joined))


def skip_network(channels: int, width: int, scales: int, input_channels: int, skip_width: int) -> nn.Sequential:
    """The network of one image: ``(1, input_channels, H', W')`` to ``(1, channels, H', W')``, before the sigmoid.

    At 3 channels, width 128, 5 scales it has 2 217 831 parameters.
    """
    network: Scale | None = None
    for scale in reversed(range(scales)):
        network = Scale(input_channels if scale == 0 else width, width, skip_width, network)
    assert network is not None
    return nn.Sequential(network, nn.Conv2d(width, channels, 1))


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
            bf16 where the processor has units for it.

    Raises:
        ValueError: the signals are not images, or an argument is out of range.
    """

    def __init__(
        self,
        problems: ProblemBatch,
        width: int = 128,
        scales: int = SCALES,
        input_channels: int = 32,
        skip_width: int = 4,
        perturbation: float = 1 / 30,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
    ) -> None:
        if len(problems.signal_shape) != 3:
            raise ValueError(f"SkipUNet needs images, C×H×W, got a signal of shape {problems.signal_shape}")
        for name, value in (("width", width), ("scales", scales), ("skip_width", skip_width)):
            at_least(name, value, 1)
        at_least("input_channels", input_channels, 1)
        not_negative("perturbation", perturbation)
        one_of("precision", precision, ["auto", "bf16", "fp32"])
        channels = problems.signal_shape[0]
        super().__init__(problems, lambda _: skip_network(channels, width, scales, input_channels, skip_width))
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.input_channels = input_channels
        self.perturbation = perturbation
        self.dtype = problems.dtype
        wanted = precision == "bf16" or (precision == "auto" and has_bfloat16_units(problems.device))
        self.bf16 = wanted and self.dtype == torch.float32
        self.image_size = problems.signal_shape[1:]
        self.working_size = working_size(self.image_size, scales)

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
        outputs = []
        for k, network in enumerate(self.networks):
            (z,) = self.input_of(k)  # H' W' input_channels
            if self.perturbation > 0:
                generator = stream(self.problems[k].seed, "perturbation", iteration, device=z.device)
                noise = self._working_buffer(z.dtype, z.device).normal_(0.0, self.perturbation, generator=generator)
                z = noise.add_(z)
            z = z.permute(2, 0, 1).unsqueeze(0)  # 1 input_channels H' W', channels last in memory
            with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
                logits = network(z)
            # the sigmoid in float32: eight bits of mantissa would show in an image
            outputs.append(torch.sigmoid(logits.to(self.dtype)[..., top : top + height, left : left + width]))
        return torch.cat(outputs)
