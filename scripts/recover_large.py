"""Recover a photograph of 1500×1000 pixels with 30 % salt and pepper in tiles: quality, seams, memory, time.

    python scripts/recover_large.py             # hours on two cores
    python scripts/recover_large.py --iterations 20 --out /tmp/large

The photograph is scikit-image's `retina` (public domain), cropped to 3:2 and enlarged from 1411 to 1500 pixels.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from dop_lightning.images.tiles import Grid, cover
from dop_lightning.problems.noise import SaltAndPepper
from dop_lightning.problems.randomness import stream

SIZE = (1000, 1500)
RATIO = 0.3


def photograph() -> np.ndarray:
    """Return the photograph, (1000, 1500, 3), uint8."""
    retina = Image.fromarray(data.retina())
    height = round(retina.width * SIZE[0] / SIZE[1])
    top = (retina.height - height) // 2
    box = (0, top, retina.width, top + height)
    return np.array(retina.resize((SIZE[1], SIZE[0]), Image.Resampling.LANCZOS, box=box))


def coverage(grid: Grid) -> np.ndarray:
    """Return the number of tiles that contain each pixel, (H, W)."""
    count = np.zeros(grid.size, dtype=int)
    for place in grid.places:
        count[grid.window(*place)] += 1
    return count


def near_ends(grid: Grid, within: int = 2) -> np.ndarray:
    """Return a mask (H, W) of the pixels at most ``within`` from the end of a tile inside the image."""
    near = np.zeros(grid.size, dtype=bool)
    for axis, (begins, side, length) in enumerate(
        ((grid.tops, grid.tile[0], grid.size[0]), (grid.lefts, grid.tile[1], grid.size[1]))
    ):
        for end in [*begins[1:], *(begin + side for begin in begins[:-1])]:
            lines = slice(max(0, end - within), min(length, end + within))
            near[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = True
    return near


def report_seams(error: np.ndarray, grid: Grid) -> None:
    """Print root mean squares of the error at the seams and elsewhere, and of its steps between neighbouring pixels.

    Args:
        error: (3, H, W).
        grid: grid of tiles.
    """
    near, count = near_ends(grid), coverage(grid)
    steps = np.diff(error, axis=2)[:, :, :-1]  # across vertical seams
    for label, values, here, there in (
        ("error in overlaps, and elsewhere", error, count > 1, count == 1),
        ("error at ends of tiles, and outside overlaps", error, near, count == 1),
        ("steps of the error at ends of tiles, and elsewhere", steps, near[:, 1:-1], ~near[:, 1:-1]),
    ):
        at, elsewhere = (np.sqrt(np.square(values[:, mask]).mean()) for mask in (here, there))
        print(f"{label:<50} {at:.5f}  {elsewhere:.5f}  ratio {at / elsewhere:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/large"))
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--tile", type=int, default=128)
    options = parser.parse_args()

    clean = photograph()
    options.out.mkdir(parents=True, exist_ok=True)
    truth, photo = options.out / "truth.png", options.out / "photo.png"
    Image.fromarray(clean).save(truth)
    pixels = torch.from_numpy(clean).permute(2, 0, 1).float() / 255  # (3, H, W)
    damaged = SaltAndPepper(RATIO).corrupt(pixels, stream(0, "corruption")).observation
    Image.fromarray(damaged.mul(255).round().byte().permute(1, 2, 0).numpy()).save(photo)

    command = [sys.executable, "-m", "dop_lightning", "recover", str(photo), "--truth", str(truth)]
    command += ["--out", str(options.out / "run"), "--preset", "paper", "--width", "32"]
    command += ["--alpha", "400", "--iterations", str(options.iterations)]
    command += ["--tile", str(options.tile), "--max-memory", "8G"]
    start = time.monotonic()
    subprocess.run(command, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{(time.monotonic() - start) / 60:.1f} minutes, peak memory {peak:.2f} GiB")

    with Image.open(options.out / "run" / "photo" / "recovered.png") as image:
        recovered = np.array(image)
    error = (recovered.astype(float) - clean).transpose(2, 0, 1) / 255
    report_seams(error, cover(SIZE, options.tile))


if __name__ == "__main__":
    main()
