"""Eq. 10 on a straightforward skip U-Net, for the benchmarks in this folder.

Eager execution, float32, biases, PyTorch's default memory format, autograd, and the optimizers of PyTorch with default
settings. On a GPU, convolutions use TF32, which is PyTorch's default.
"""

from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from interleaved import Loop
from torch import Tensor, nn

from dop_lightning.foundation.machine import keep_freed_memory
from dop_lightning.model.signals.unet.skip_network import SCALES
from dop_lightning.problems.problem import ProblemBatch


def activated(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="reflect")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, track_running_stats=False), nn.LeakyReLU(0.2))


class PlainScale(nn.Module):
    """One scale of the skip U-Net, which contains the deeper ones."""

    def __init__(self, inputs: int, width: int, scales: int) -> None:
        super().__init__()
        self.skip = activated(inputs, 4, 1)
        deeper = [PlainScale(width, width, scales - 1)] if scales > 1 else []
        self.down = nn.Sequential(activated(inputs, width, 3, stride=2), activated(width, width, 3), *deeper)
        self.merge = nn.Sequential(
            nn.BatchNorm2d(width + 4, track_running_stats=False),
            activated(width + 4, width, 3),
            activated(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        below = F.interpolate(self.down(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.merge(torch.cat([self.skip(x), below], dim=1))


def by_hand(problems: ProblemBatch, width: int) -> Loop:
    """Return a function of k that runs k iterations on the first problem."""
    return plain_loop(problems.observation[:1], width)


def plain_loop(y: Tensor, width: int) -> Loop:
    """Return a function of k that runs k iterations on an image ``(1, C, H, W)``."""
    _, channels, *sides = y.shape
    network = nn.Sequential(PlainScale(32, width, SCALES), nn.Conv2d(width, channels, 1), nn.Sigmoid()).to(y.device)
    z = 0.1 * torch.rand(1, 32, *sides, device=y.device)
    g, h = (nn.Parameter(1e-5 * torch.randn_like(y)) for _ in range(2))
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.005), torch.optim.SGD([g, h], lr=400.0)]

    @torch.enable_grad()
    def run(iterations: int) -> None:
        for _ in range(iterations):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = (network(z + torch.randn_like(z) / 30) + g**2 - h**2 - y).square().mean()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()

    return run


class Apart:
    """The same loop in a separate process, which waits between the calls.

    Args:
        y: image, ``(1, C, H, W)`` on the CPU.
        width: channels of the network.
        tuned: whether the process keeps freed memory, as ``dop`` does.
    """

    def __init__(self, y: Tensor, width: int, tuned: bool = False) -> None:
        self.here, there = get_context("spawn").Pipe()
        arguments = (there, y.numpy(), width, torch.get_num_threads(), tuned)
        self.process = get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        there.close()

    def __call__(self, iterations: int) -> None:
        """Run this number of iterations, and wait for them."""
        self.here.send(iterations)
        self.here.recv()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self.here.close()
        self.process.join()


def _serve(calls: Connection, y: object, width: int, threads: int, tuned: bool) -> None:
    torch.set_num_threads(threads)
    if tuned:
        keep_freed_memory()
    run = plain_loop(torch.as_tensor(y), width)
    while True:
        try:
            run(calls.recv())
        except EOFError:
            return
        calls.send(None)
