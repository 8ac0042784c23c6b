"""Measure the memory of recovering a stack of slices, without the stack itself and its results.

    python scripts/measure_stack_memory.py --slices 10 100

Each number of slices runs in a separate process. The last column must not grow with the number of slices.
"""

import argparse
import subprocess
import sys

import numpy as np
from crops import crop


def peak() -> int:
    """Return the peak resident memory of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def measure(slices: int, side: int, preset: str, iterations: int | None) -> None:
    """Recover a stack, and print its memory."""
    from dop_lightning import recover_image

    picture = crop("camera", side)
    random = np.random.default_rng(0)
    stack = np.repeat(picture[None], slices, axis=0)
    stack[random.random(stack.shape, dtype=np.float32) < 0.1] = 255
    options = {"preset": preset, "iterations": iterations, "progress": False, "device": "cpu"}
    recover_image(stack[:1], channel_axis=None, **options)  # import and compile before measuring
    before = peak()
    found = recover_image(stack, channel_axis=None, **options)
    arrays = (found.image, found.corruption, found.corruption_probability, found.mask)
    results = sum(array.nbytes for array in arrays if array is not None)
    more = peak() - before - results
    print(f"{slices:>7} {stack.nbytes / 2**20:>7.1f} {results / 2**20:>9.1f} {more / 2**20:>14.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--side", type=int, default=128, help="side of a slice in pixels; default: 128")
    parser.add_argument("--preset", default="instant")
    parser.add_argument("--iterations", type=int, help="iterations of the networks; default: as in the preset")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(options.slices[0], options.side, options.preset, options.iterations)
        return 0
    print(" slices   stack   results      other, MiB", flush=True)
    for count in options.slices:
        more = [] if options.iterations is None else ["--iterations", str(options.iterations)]
        own = ["--slices", str(count), "--side", str(options.side), "--preset", options.preset, *more, "--here"]
        subprocess.run([sys.executable, __file__, *own], check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
