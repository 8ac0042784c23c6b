"""Compare the time of a step of Muon in compiled code and with operations of PyTorch, for the kernels of a skip U-Net.

    OMP_NUM_THREADS=1 python scripts/benchmark_muon.py
    OMP_NUM_THREADS=2 python scripts/benchmark_muon.py --widths 32 64 --rounds 50

The two take turns. The table has median times of a step in milliseconds, and the greatest error of the direction of a
kernel, UVᵀ, relative to the same steps in double precision, with the precision that PyTorch uses here by default.
"""

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor

from dop_lightning.engine.optim import compiled_muon
from dop_lightning.engine.optim.muon import ROUNDS, Muon, orthogonalised
from dop_lightning.foundation.native.compiled import library
from dop_lightning.model.signals.unet.skip_network import skip_network

DECAY = 0.7
"""Ratio of successive singular values of the gradients: few directions dominate, as in training."""


def gradient(p: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a gradient with decaying singular values, in the layout of a kernel."""
    if p.dim() < 2:
        return torch.randn(p.shape, generator=generator)
    left, _, right = torch.linalg.svd(torch.randn(p.shape[0], p[0].numel(), generator=generator), full_matrices=False)
    return ((left * DECAY ** torch.arange(left.shape[1])) @ right).view(p.shape).to(memory_format=torch.channels_last)


def error(step: Tensor, exact: Tensor) -> float:
    """Return the relative error of the direction of a step, ignoring its length."""
    step, exact = step.double() / step.double().norm(), exact / exact.norm()
    return float((step - exact).norm())


def compare(width: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return the median seconds and the greatest errors of the compiled step and of PyTorch."""
    generator = torch.Generator().manual_seed(0)
    network = skip_network(3, width, 5, 32, 4, False, generator).to(memory_format=torch.channels_last)
    parameters = list(network.parameters())
    for p in parameters:
        p.grad = gradient(p, generator)
    supported, seconds, errors = compiled_muon.can_step, ([], []), [0.0, 0.0]
    optimizer = Muon(parameters, momentum=0.0)
    for repeat in range(rounds):
        for k, can_step in enumerate((supported, lambda _: False)):
            before = [p.detach().clone() for p in parameters]
            compiled_muon.can_step = can_step
            begin = time.perf_counter()
            optimizer.step()
            seconds[k].append(time.perf_counter() - begin)
            if repeat == 0:
                for p, old in zip(parameters, before, strict=True):
                    if p.dim() > 1:
                        exact = orthogonalised(p.grad.movedim(1, -1).flatten(1)[None].double(), ROUNDS)[0]
                        errors[k] = max(errors[k], error((old - p.detach()).movedim(1, -1).flatten(1), exact))
    compiled_muon.can_step = supported
    return [statistics.median(each) for each in seconds], errors


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    if library() is None:
        sys.exit("error: the compiled step needs a C++ compiler")
    print("| width | PyTorch, ms | compiled, ms | ratio | error of PyTorch | error, compiled |")
    print("| --- | --- | --- | --- | --- | --- |")
    for width in options.widths:
        (compiled, plain), errors = compare(width, options.rounds)
        print(
            f"| {width} | {1000 * plain:.2f} | {1000 * compiled:.2f} | {plain / compiled:.1f} | {errors[1]:.1e} | "
            f"{errors[0]:.1e} |"
        )


if __name__ == "__main__":
    main()
