"""Time `dop recover` on many small pictures.

    OMP_NUM_THREADS=2 python scripts/benchmark_small_images.py

The script recovers pictures of 12×12 pixels for one iteration, so that nearly all of the time is overhead per picture:
reading, the initial support, building the network, scores, files and checkpoints. It prints wall-clock time and
processor time of the whole command, and the processor time of other processes in the meantime.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dop_lightning.images.presets import PRESETS


def make_pictures(folder: Path, count: int, size: int) -> None:
    """Write gradients with 30 % of the values set to 0 or 255."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for k in range(count):
        clean = np.broadcast_to(np.linspace(0.2, 0.8, size)[:, None, None], (size, size, 3))
        is_corrupted = generator.random(clean.shape) < 0.3
        pixels = np.where(is_corrupted, np.round(generator.random(clean.shape)), clean)
        Image.fromarray((255 * pixels).astype(np.uint8)).save(folder / f"{k:04d}.png")


def busy_seconds() -> float:
    """Return the processor seconds of all processes of this machine so far."""
    path = Path("/proc/stat")
    if not path.is_file():
        return float("nan")
    user, nice, system = path.read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="number of pictures; default: %(default)s")
    parser.add_argument("--size", type=int, default=12, help="side of the pictures in pixels; default: %(default)s")
    parser.add_argument(
        "--presets",
        nargs="+",
        default=["quick", "default"],
        choices=tuple(name for name, preset in PRESETS.items() if preset.refined),
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        pictures = Path(made) / "pictures"
        make_pictures(pictures, options.count, options.size)
        for preset in options.presets:
            out = Path(made) / preset
            arguments = ["recover", str(pictures), "--out", str(out), "--preset", preset, "--iterations", "1"]
            before, busy, begin = resource.getrusage(resource.RUSAGE_CHILDREN), busy_seconds(), time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "dop_lightning", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=-3
            )
            seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
            own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            others = busy_seconds() - busy - own
            written = len(list(out.glob("*/result.json")))
            print(
                f"{preset}: {written} pictures of {options.size}×{options.size} in {seconds:.1f} s, "
                f"{own:.1f} s of processor time; other processes used {max(0.0, others):.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
