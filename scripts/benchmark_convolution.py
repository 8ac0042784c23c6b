"""Compare convolutions of 3×n×n images with k×k kernels, and their transposes: direct, separable and by FFT.

OMP_NUM_THREADS=1 python scripts/benchmark_convolution.py [--sizes 128 256 512] [--taps 5 9 21]
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.model.operators import GaussianBlur, operator_of
from dop_lightning.model.operators.convolution import Convolution
from dop_lightning.problems.problem import Problem, ProblemBatch


def milliseconds(work: Callable[[], Tensor], rounds: int) -> float:
    """Return the minimum over the rounds: other load on the machine can only increase a time."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times[1:])


def ways(n: int, k: int) -> list[Callable[[], Tensor]]:
    """Return the implementations, each followed by its transpose."""
    x = torch.rand(1, 3, n, n)
    sensing = GaussianBlur((k // 2) / 4)  # truncated at 4 standard deviations
    operator = operator_of(ProblemBatch([Problem("a", x[0], sensing=sensing, signal_shape=(3, n, n))]))
    assert isinstance(operator, Convolution)
    taps = sensing.kernel_taps().float()
    column, row = taps.sum(1)[None, None, :, None], taps.sum(0)[None, None, None, :]
    kernel, singles = taps[None, None], x.transpose(0, 1)
    return [
        lambda: functional.conv2d(singles, kernel),
        lambda: functional.conv_transpose2d(singles, kernel),
        lambda: functional.conv2d(functional.conv2d(singles, column), row),
        lambda: functional.conv_transpose2d(functional.conv_transpose2d(singles, column), row),
        lambda: operator(x),
        lambda: operator.adjoint(x),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--taps", type=int, nargs="+", default=[5, 9, 21])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    prepare()
    print(f"{'ms':>12}" + "".join(f"{name:>9}" for name in ("conv2d", "its T", "rows", "its T", "FFT", "its T")))
    for n in options.sizes:
        for k in options.taps:
            times = [milliseconds(work, options.rounds) for work in ways(n, k)]
            print(f"{n:>6}{k:>3}×{k:<2}" + "".join(f"{value:>9.2f}" for value in times), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
