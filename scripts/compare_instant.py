"""Compare quality and processor time of the preset `instant` before and after a change.

    python scripts/compare_instant.py --save before.json
    python scripts/compare_instant.py --before before.json      # the differences, in dB
    python scripts/compare_instant.py --cases hot --sizes 512

The images are full-resolution crops of the colour photographs of scikit-image and of its grey `camera`. The cases
are salt and pepper (`salt`) and random values (`random`) at 10 to 70 %, hot values at 0.02 to 2 % (`hot`), values
raised by 30 to 60 levels at 0.1 to 2 % (`warm`), salt and pepper at 0.02 to 1 % (`few`), random values at 0.1 to 5 %
(`rare`), black or white pixels at 0.2 to 30 % (`pixels`), and no damage (`none`). PSNR is in dB, of the whole image and
of the damaged entries. `missed` is the fraction of the damaged entries that are classified as clean (w > 0.5), and
`rejected` the fraction of the clean entries that are not. Seconds are processor seconds per million pixels, on one
thread.
"""

import argparse
import json
import time
import zlib
from collections import defaultdict
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from crops import crop_tensor
from torch import Tensor

from dop_lightning.engine.instant import Interpolation
from dop_lightning.problems.problem import Problem

IMAGES = ("astronaut", "chelsea", "coffee", "rocket", "camera")
LEVELS = (0.1, 0.3, 0.5, 0.7)
CASES = {
    "salt": LEVELS,
    "random": LEVELS,
    "hot": (0.0002, 0.001, 0.005, 0.02),
    "warm": (0.001, 0.005, 0.02),
    "few": (0.0002, 0.002, 0.01),
    "rare": (0.001, 0.01, 0.05),
    "pixels": (0.002, 0.02, 0.3),
    "none": (0.0,),
}
COLUMNS = ("PSNR", "PSNR of damaged", "missed", "rejected", "seconds")

Row = dict[str, float]


def damage(truth: Tensor, case: str, level: float, name: str) -> Tensor:
    """Return the damaged 8-bit image; the seed is derived from the arguments."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {case} {level} {tuple(truth.shape)}".encode()))
    shape = truth[:1].shape if case == "pixels" else truth.shape
    places = torch.from_numpy(rng.random(shape) < level)
    if case == "warm":
        raised = truth + torch.from_numpy(rng.integers(30, 61, shape)).float() / 255
        return torch.where(places, raised.clamp(max=1), truth)
    if case in ("random", "rare", "hot"):
        values = rng.integers(200 if case == "hot" else 0, 256, shape)
    else:
        values = 255 * rng.integers(0, 2, shape)
    return torch.where(places, torch.from_numpy(values).float() / 255, truth)


def measure(name: str, size: int, case: str, level: float, at: tuple[float, float]) -> Row:
    """Restore one image, rounded to 8 bits, and return its scores."""
    truth = crop_tensor(name, size, *at)
    y = damage(truth, case, level, name)
    begin = time.process_time()
    found = Interpolation().restored(Problem("image", y, data_range=1.0))
    seconds = time.process_time() - begin
    assert found.probability is not None
    square = ((255 * found.signal).round().clamp(0, 255) / 255 - truth).square()
    hit, doubted = y != truth, found.probability >= 0.5
    floor = 1e-10  # 100 dB
    return {
        "PSNR": float(-10 * square.mean().clamp_min(floor).log10()),
        "PSNR of damaged": float(-10 * square[hit].mean().clamp_min(floor).log10()) if bool(hit.any()) else 100.0,
        "missed": float((hit & ~doubted).sum() / hit.sum().clamp_min(1)),
        "rejected": float((doubted & ~hit).sum() / (~hit).sum()),
        "seconds": seconds / (size * size / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=list(IMAGES), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256])
    parser.add_argument(
        "--at",
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        metavar=("TOP", "LEFT"),
        help="position of the crops, from 0 (top or left) to 1; default: the center",
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--save", type=Path, help="write the results to this file")
    parser.add_argument("--before", type=Path, help="compare with the results in this file")
    parser.add_argument("--each", action="store_true", help="also print the difference for each image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Row] = {}
    before: dict[str, Row] = json.loads(options.before.read_text()) if options.before else {}
    groups: dict[tuple[str, float, int], list[str]] = defaultdict(list)
    measure(options.images[0], 64, "salt", 0.5, options.at)  # load kernels before timing
    for size in options.sizes:
        for case in options.cases:
            for level in CASES[case]:
                for name in options.images:
                    key = f"{name} {size} {case} {level}"
                    rows[key] = measure(name, size, case, level, options.at)
                    groups[case, level, size].append(key)
                    if options.save:
                        options.save.write_text(json.dumps(rows, indent=1))
    print(
        "| case | share | size | "
        + " | ".join(COLUMNS)
        + (" | ΔPSNR | least | Δdamaged | least | times as fast |" if before else " |")
    )
    print("|" + " --- |" * (8 + 5 * bool(before)))
    for (case, level, size), keys in groups.items():
        cells = [case, f"{100 * level:g} %", str(size)]
        for column in COLUMNS:
            value = mean(rows[key][column] for key in keys)
            cells.append(f"{value:.4f}" if column in ("missed", "rejected") else f"{value:.2f}")
        if before:
            for column in COLUMNS[:2]:
                steps = [rows[key][column] - before[key][column] for key in keys]
                cells += [f"{mean(steps):+.3f}", f"{min(steps):+.3f}"]
            cells.append(f"{sum(before[k]['seconds'] for k in keys) / sum(rows[k]['seconds'] for k in keys):.2f}")
        print("| " + " | ".join(cells) + " |", flush=True)
        for key in keys if options.each and before else ():
            pairs = (f"{column} {before[key][column]:.4f} → {rows[key][column]:.4f}" for column in COLUMNS)
            print(" ", key, *pairs, sep="; ")


if __name__ == "__main__":
    main()
