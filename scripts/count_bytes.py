"""Count the bytes of one gradient iteration on a GPU without a GPU, on the meta device (see memory_traffic.py).

    python scripts/count_bytes.py
    python scripts/count_bytes.py --cases best:512:128 --by-name

A case is PRESET:SIZE:WIDTH, in bf16. The table has one row for each variant of the network:

- ``as it was``: reflection padding in 1×1 convolutions, upsampling in float32;
- ``plain``: the operations of PyTorch, which are used without Triton;
- ``fused``: the kernels of ``model/signals/unet/triton_kernels``, which the preset ``paper`` does not use.

The exit status is 1 if a limit of :data:`BARS` is exceeded.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import torch
from memory_traffic import CudaAutocast, Traffic, kept_for_backward
from torch import nn

from dop_lightning.engine.descent import BatchState
from dop_lightning.images.presets import PRESETS, TAU
from dop_lightning.model.signals import SkipUNet
from dop_lightning.model.signals.unet import skip_network, skip_unet
from dop_lightning.problems.problem import Problem, ProblemBatch

CASES = ["best:512:128", "best:256:64", "default:128:32", "paper:512:128"]

VARIANTS = ["as it was", "plain", "fused"]

MIB = 2**20


class Bar(NamedTuple):
    """Limits of an iteration: GB, MiB kept for the backward pass, kernel launches."""

    gb: float
    kept_mib: float
    launches: int


BARS = {
    ("best:512:128", "plain"): Bar(9.0, 975, 440),
    ("best:256:64", "plain"): Bar(1.3, 130, 440),
    ("default:128:32", "plain"): Bar(0.21, 20, 440),
    ("paper:512:128", "plain"): Bar(9.3, 975, 500),
    ("best:512:128", "fused"): Bar(4.9, 530, 300),
    ("best:256:64", "fused"): Bar(0.75, 75, 300),
    ("default:128:32", "fused"): Bar(0.13, 12, 300),
}
"""Limits by case and variant. Empty pads and large float32 arrays are never allowed."""

AFTER_START = 1001
"""An iteration at which the refinement does not evaluate its criteria."""


class Count(NamedTuple):
    """Costs of one iteration.

    Attributes:
        traffic: bytes, launches, and operations that should not occur.
        kept: bytes that are kept for the backward pass.
        launches: kernels of the iteration, without those that prepare its input outside a CUDA graph.
    """

    traffic: Traffic
    kept: int
    launches: int

    def failures(self, bar: Bar) -> list[str]:
        """Describe the values that exceed a limit."""
        found = {
            "GB": (self.traffic.total / 1e9, bar.gb),
            "MiB kept": (self.kept / MIB, bar.kept_mib),
            "launches": (self.launches, bar.launches),
            "empty pads": (self.traffic.empty_pads, 0),
            "large float32 arrays": (len(self.traffic.large_fp32), 0),
        }
        return [f"{value:g} {name}, at most {most:g}" for name, (value, most) in found.items() if value > most]


def state_on_meta(preset: str, side: int, width: int) -> BatchState:
    """Return a batch of one image of side×side pixels on the meta device, as if it were on a GPU."""
    observation = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    problems = ProblemBatch([Problem("image", observation, seed=0)])
    state = BatchState(PRESETS[preset].method(width, "bf16"), problems, TAU)
    modules = (state.signal, state.corruption, state.operator)
    before = [p for module in modules for p in module.parameters()]
    for module in modules:
        module.to("meta")
    moved = dict(zip(before, [p for module in modules for p in module.parameters()], strict=True))
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["params"] = [moved[p] for p in group["params"]]
    state.problems = problems.to("meta")
    for name, remembered in state.memory.items():
        if remembered.shape == state.problems.observation.shape:  # the others stay on the host
            state.memory[name] = remembered.to("meta")
    if "guide" in state.memory and state.signal.guided is not None:
        state.signal.guided.guide_by(state.memory["guide"])
    state.iteration = AFTER_START
    return state


@contextlib.contextmanager
def as_on_cuda(fused: bool) -> Iterator[None]:
    """Treat the meta device like CUDA, with or without Triton."""
    no_generator = mock.patch.object(skip_unet, "stream", return_value=None)  # the meta device has none
    kernels = mock.patch.object(skip_unet, "are_usable", return_value=fused)
    with mock.patch.object(torch, "autocast", CudaAutocast), no_generator, kernels:
        yield


def undo_improvements(signal: SkipUNet) -> None:
    """Undo the improvements of 1×1 convolutions and upsampling."""
    for module in signal.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels != signal.shape[0]:
            module.padding_mode = "reflect"
        if isinstance(module, skip_network.Scale):
            module.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def count(preset: str, side: int, width: int, variant: str) -> Count:
    """Count one iteration, after the optimizers have allocated their state."""
    state = state_on_meta(preset, side, width)
    assert isinstance(state.signal, SkipUNet)
    if variant == "as it was":
        undo_improvements(state.signal)
    with as_on_cuda(variant == "fused"):
        state.method.steps.descend(state, 1)
        state.iteration += 1
        assert state.signal.perturbed is not None
        with Traffic(state.problems.observation.numel()) as traffic, kept_for_backward() as kept:
            state.signal.perturbed.prepare(state.iteration)  # as before replaying a CUDA graph
            ahead = traffic.launches
            state.method.steps.descend(state, 1)
    return Count(traffic, sum(kept.values()), traffic.launches - ahead)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="PRESET:SIZE:WIDTH")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--by-name", action="store_true", help="also print the bytes of each operation")
    options = parser.parse_args()
    missed = []
    print("| case | variant | GB | kept, MiB | launches | empty pads | large fp32 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in options.cases:
        preset, side, width = case.split(":")
        for variant in options.variants:
            if variant == "fused" and not PRESETS[preset].refined:
                continue
            found = count(preset, int(side), int(width), variant)
            traffic = found.traffic
            if (case, variant) in BARS:
                missed += [f"{case}, {variant}: {failure}" for failure in found.failures(BARS[case, variant])]
            print(
                f"| {case} | {variant} | {traffic.total / 1e9:.2f} | {found.kept / MIB:.0f} | {found.launches} | "
                f"{traffic.empty_pads} | {len(traffic.large_fp32)} |"
            )
            if options.by_name:
                for name, size in traffic.by_name.most_common(25):
                    print(f"  {size / 1e9:7.3f} GB  {traffic.count[name]:4d}×  {name}")
                print(*sorted(set(traffic.large_fp32)), sep="\n")
    print(*missed, sep="\n", end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
