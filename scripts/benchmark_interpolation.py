"""Compare the time and quality of kriging interpolation with those of biharmonic inpainting, with a known mask.

    OMP_NUM_THREADS=2 python scripts/benchmark_interpolation.py --sizes 256 512 --levels 0.5

The images are full-resolution crops of pictures of scikit-image with salt-and-pepper noise. Both methods know which
entries are clean. The table lists PSNR in dB, and the seconds of the compiled kernel, of plain operations and of
biharmonic inpainting.
"""

import argparse
import time
from collections.abc import Callable

import torch
from crops import crop_tensor
from torch import Tensor

from dop_lightning.engine.rivals import Biharmonic
from dop_lightning.engine.steps.clean_entries import interpolate, kriging
from dop_lightning.foundation.machine import set_threads
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import SaltAndPepper


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the seconds of the faster of two calls, and the result."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


def biharmonic(y: Tensor, hit: Tensor) -> Tensor:
    return torch.from_numpy(Biharmonic().fill(y.double().numpy(), hit.numpy())).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=["astronaut", "chelsea", "coffee", "rocket"], metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, default=[256])
    parser.add_argument("--levels", nargs="+", type=float, default=[0.1, 0.3, 0.5, 0.7])
    options = parser.parse_args()
    set_threads()
    print("| image | size | level | dB | biharmonic | s | plain | biharmonic |\n|" + " --- |" * 8)
    for size in options.sizes:
        for name in options.images:
            truth = crop_tensor(name, size)
            for level in options.levels:
                y = SaltAndPepper(level).corrupt(truth, torch.Generator().manual_seed(1)).observation
                hit = y != truth
                clean = (~hit).float()
                seconds, found = timed(lambda y=y, clean=clean, hit=hit: interpolate(y, clean, hit))
                kernels, kriging.library = kriging.library, lambda: None
                plain, _ = timed(lambda y=y, clean=clean, hit=hit: interpolate(y, clean, hit))
                kriging.library = kernels
                slow, rival = timed(lambda y=y, hit=hit: biharmonic(y, hit))
                scores = (
                    float(psnr(torch.where(hit, x, y).clamp(0, 1)[None], truth[None], 1.0)) for x in (found, rival)
                )
                cells = [name, size, f"{100 * level:.0f} %", *(f"{x:.2f}" for x in (*scores, seconds, plain, slow))]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
