"""Compare the time to draw the perturbation of a network by the compiled kernel and by PyTorch, on one thread.

    python scripts/benchmark_noise.py
    python scripts/benchmark_noise.py --sides 128 512 --rounds 20

The two take turns. The table has the median processor time of an array of side×side×32 values, in milliseconds.
"""

import argparse
import statistics
import sys
import time

import torch

from dop_lightning.foundation.native import library
from dop_lightning.model.signals.unet.kernels import add_normal

CHANNELS = 32


def times(side: int, rounds: int) -> tuple[float, float]:
    """Return the median seconds of PyTorch and of the kernel."""
    x = torch.rand(side, side, CHANNELS)
    out = torch.empty_like(x)
    generator = torch.Generator()
    found: tuple[list[float], list[float]] = ([], [])
    for seed in range(rounds):
        begin = time.process_time()
        out.normal_(0.0, 0.03, generator=generator.manual_seed(seed)).add_(x)
        middle = time.process_time()
        add_normal(x, 0.03, seed, out)
        found[0].append(middle - begin)
        found[1].append(time.process_time() - middle)
    return statistics.median(found[0]), statistics.median(found[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 192, 256], metavar="PIXELS")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if library() is None:
        sys.exit("error: the kernels need a C++ compiler")
    print("| side, pixels | PyTorch, ms | kernel, ms | ratio |\n| --- | --- | --- | --- |")
    for side in options.sides:
        plain, kernel = (1000 * seconds for seconds in times(side, options.rounds))
        print(f"| {side} | {plain:.2f} | {kernel:.2f} | {plain / kernel:.1f} |")


if __name__ == "__main__":
    main()
