"""Layers of the skip U-Net, the architecture of deep image prior [Ulyanov et al., 2018].

Shapes: images ``(1, C, H, W)``.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

SCALES = 5
"""Number of scales of the network in the paper."""


def working_size(size: Sequence[int], scales: int = SCALES) -> list[int]:
    """Return the size [H', W'] at which a network with ``scales`` scales processes an image of H×W pixels.

    >>> working_size([300, 451]), working_size([8, 8])
    ([320, 480], [64, 64])
    """
    multiple = 2**scales
    return [max(-(-side // multiple) * multiple, 2 * multiple) for side in size]


class Convolution(nn.Conv2d):
    """Convolution with the initialization of ``nn.Conv2d``, but from a given generator.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: side of the kernel.
        generator: generator for the parameters; ``None`` is the global one of PyTorch.
        **options: further arguments of ``nn.Conv2d``.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, generator: torch.Generator | None, **options: Any
    ) -> None:
        super().__init__(inputs, outputs, kernel, **options)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        if self.bias is not None:
            bound = 1 / math.sqrt(inputs * kernel**2)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def reset_parameters(self) -> None:
        """Do not draw parameters yet."""


class Upsample(nn.Upsample):
    """Bilinear upsampling by 2 in the dtype of its input.

    With autocast on CUDA, it would be computed in float32, and so would the following concatenation, norm and padding.
    """

    def __init__(self) -> None:
        super().__init__(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``(1, C, H, W)`` to ``(1, C, 2H, 2W)``."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class Activated(nn.Sequential):
    """Convolution with reflection padding, batch norm with the statistics of the batch, and LeakyReLU(0.2)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        bias: bool,
        stride: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        margin = (kernel - 1) // 2
        # reflection padding of 0 pixels would copy the input
        mode: Literal["reflect", "zeros"] = "reflect" if margin else "zeros"
        super().__init__(
            Convolution(
                inputs, outputs, kernel, generator, stride=stride, padding=margin, padding_mode=mode, bias=bias
            ),
            nn.BatchNorm2d(outputs, track_running_stats=False),  # the batch is one image, also for scores
            nn.LeakyReLU(0.2),
        )

    @property
    def convolution(self) -> nn.Conv2d:
        """The convolution, including the padding."""
        return cast(nn.Conv2d, self[0])

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch norm."""
        return cast(nn.BatchNorm2d, self[1])


class Scale(nn.Module):
    """One scale of the U-Net, which contains the deeper scales.

    It has two parallel branches, ``skip: 1×1 conv to skip_width`` and ``down: 3×3 stride 2, 3×3 → deeper scale →
    bilinear ×2``. They are concatenated (skip first), normalised, and merged by a 3×3 and a 1×1 convolution.
    """

    skip: Activated
    deeper: "Scale | None"
    norm: nn.BatchNorm2d

    def __init__(
        self,
        inputs: int,
        width: int,
        skip_width: int,
        bias: bool,
        deeper: "Scale | None",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        activated = partial(Activated, bias=bias, generator=generator)
        self.skip = activated(inputs, skip_width, 1)
        self.down = nn.Sequential(activated(inputs, width, 3, stride=2), activated(width, width, 3))
        self.deeper = deeper
        self.up = Upsample()
        self.norm = nn.BatchNorm2d(skip_width + width, track_running_stats=False)
        self.merge = nn.Sequential(activated(skip_width + width, width, 3), activated(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(1, inputs, H, W)`` to ``(1, width, H, W)``."""
        below = self.down(x)  # 1 width H/2 W/2
        if self.deeper is not None:
            below = self.deeper(below)
        joined = torch.cat([self.skip(x), self.up(below)], dim=1)  # 1 (skip_width + width) H W
        return self.merge(self.norm(joined))


def skip_network(
    channels: int,
    width: int,
    scales: int,
    input_channels: int,
    skip_width: int,
    bias: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Create the network of one image: ``(1, input_channels, H', W')`` to ``(1, channels, H', W')``, without sigmoid.

    With 3 channels, width 128 and 5 scales, it has 2 217 831 parameters. They are drawn from ``generator``, by default
    the global one.
    """
    network = Scale(input_channels if scales == 1 else width, width, skip_width, bias, None, generator)
    for scale in reversed(range(scales - 1)):
        network = Scale(input_channels if scale == 0 else width, width, skip_width, bias, network, generator)
    return nn.Sequential(network, Convolution(width, channels, 1, generator))
