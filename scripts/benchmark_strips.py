"""Compare the gradient of a convolution with respect to its weights: whole image at once, and strip by strip.

    OMP_NUM_THREADS=2 python scripts/benchmark_strips.py

The cases are the largest convolutions of the skip U-Net, in bf16: 3×3 at full size and at half size. The two variants
take turns.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.model.signals.unet.kernels import convolution


def seconds(x: Tensor, weight: Tensor, strips: int) -> float:
    """Return the seconds of the gradient with respect to ``weight``."""
    y = convolution._Convolve.apply(x, weight, None, 1, strips)
    begin = time.perf_counter()
    y.backward(torch.ones_like(y))
    return time.perf_counter() - begin


def measure(side: int, width: int, rounds: int) -> str:
    """Return one row of the table."""
    x = torch.randn(1, width + 4, side + 2, side + 2).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(width, width + 4, 3, 3).bfloat16().contiguous(memory_format=torch.channels_last)
    weight.requires_grad_()
    strips = convolution.strips_of(x, 3)
    times: dict[int, list[float]] = {1: [], strips: []}
    for _ in range(rounds + 1):
        for count, found in times.items():
            found.append(seconds(x, weight, count))
    whole, divided = (1000 * statistics.median(times[count][1:]) for count in (1, strips))
    return f"| {side}×{side}, {width} | {whole:.1f} ms | {divided:.1f} ms | {strips} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["512:128", "256:128", "128:128", "256:64", "512:32", "256:32"])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    prepare()
    print("| image, width | at once | strip by strip | strips |", "| --- | --- | --- | --- |", sep="\n", flush=True)
    for size in options.sizes:
        print(measure(*map(int, size.split(":")), options.rounds), flush=True)


if __name__ == "__main__":
    main()
