"""Measure the peak memory of gradient iterations of an image, and fit the constants of dop_lightning/images/cost.py.

    python scripts/measure_memory.py            # a table, and the fitted constants
    python scripts/measure_memory.py --plain    # with plain operations instead of the kernels of
    dop_lightning.model.signals.unet.kernels

Each case runs in a separate process, because the peak of a process never decreases. The memory of a process before the
network is built is subtracted.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

CASES = [(width, side) for width in (32, 64, 128) for side in (128, 256, 384)]


def peak_of_process() -> int:
    """Return the peak bytes on Linux. ``ru_maxrss`` includes the parent before exec, VmHWM does not."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def peak(width: int, side: int, precision: str, fused: bool) -> int:
    """Return the bytes of three iterations on a 3×side×side image, less those of a small image."""
    import torch

    from dop_lightning.engine.descent import BatchState
    from dop_lightning.engine.method import Method
    from dop_lightning.foundation.machine import keep_freed_memory
    from dop_lightning.model.corruption import HadamardCorruption
    from dop_lightning.model.losses import SquaredLoss
    from dop_lightning.model.signals import SkipUNet
    from dop_lightning.problems.problem import Problem, ProblemBatch

    keep_freed_memory()  # as in dop

    def signal(problems: ProblemBatch) -> SkipUNet:
        return SkipUNet(problems, width=width, precision=precision, bias=not fused, fused=fused)

    def corruption(problems: ProblemBatch) -> HadamardCorruption:
        return HadamardCorruption(problems, scale=1e-5, tied=False)

    def three(size: int) -> int:
        image = torch.rand(3, size, size)
        state = BatchState(
            Method(signal, corruption, loss=SquaredLoss("mean")), ProblemBatch([Problem("image", image)]), 1.0, 1.0
        )
        state.advance(3)
        return peak_of_process()

    before = three(64)  # buffers, threads and kernels of the libraries
    return three(side) - before


def measure(width: int, side: int, precision: str, kind: str) -> int:
    command = [sys.executable, __file__, "--case", str(width), str(side), precision, kind]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", action="store_true", help="measure plain operations")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        width, side, precision, kind = options.case
        print(peak(int(width), int(side), precision, kind == "fused"))
        return
    kind = "plain" if options.plain else "fused"
    for precision in ("fp32", "bf16"):
        rows, found = [], []
        for width, side in CASES:
            size = measure(width, side, precision, kind)
            pixels = side**2 - 64**2
            rows.append([1, width])
            found.append(size / pixels)
            print(
                f"{precision}  width {width:>3}  {side}×{side}  {size / 2**20:7.0f} MiB  {size / pixels:7.0f} B/pixel"
            )
        (fixed, slope), *_ = np.linalg.lstsq(np.array(rows, float), np.array(found), rcond=None)
        print(f"{kind} {precision}: {fixed:.0f} + {slope:.1f}·width bytes per working pixel")


if __name__ == "__main__":
    main()
