"""Measure the effect of recovery on images without damage, and with 1 % damage: PSNR in dB, or `unchanged`.

    OMP_NUM_THREADS=1 python scripts/measure_clean_images.py --out harm.csv

The images are full-resolution crops of pictures of scikit-image, and drawings generated with Pillow. Each is recovered
without damage, and with 1 % salt and pepper. `unchanged` means that all bits are equal. Rows are appended to the file;
the same command continues an interrupted measurement.
"""

import argparse
import csv
import math
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from crops import crop
from PIL import Image, ImageDraw

from dop_lightning import recover_image
from dop_lightning.images.presets import PRESETS
from dop_lightning.problems.metrics import psnr

COLUMNS = ("preset", "size", "image", "undamaged", "input", "output")

LEVEL = 0.01


def line_art(side: int) -> np.ndarray:
    """Return black lines of 1 to 3 pixels, and an ellipse, on white."""
    image = Image.new("L", (side, side), 255)
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(0)
    for width in (1, 1, 2, 3, 1, 2):
        draw.line([float(at) for at in rng.uniform(0, side, 4)], fill=0, width=width)
    draw.ellipse([side * 0.2, side * 0.2, side * 0.7, side * 0.7], outline=0, width=2)
    return np.asarray(image)


def screenshot(side: int) -> np.ndarray:
    """Return a window with a title, buttons and lines of text, in colour."""
    image = Image.new("RGB", (side, side), (236, 236, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, side, 14], fill=(48, 84, 150))
    draw.text((4, 2), "dop recover", fill=(255, 255, 255))
    for row in range(20, side - 24, 12):
        draw.text((4, row), f"{row:03d}  photo-{row % 7}.png  done", fill=(20, 20, 20))
    draw.rectangle([side - 40, side - 20, side - 6, side - 6], fill=(200, 60, 50), outline=(90, 20, 20))
    return np.asarray(image)


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)


IMAGES: dict[str, Callable[[int], np.ndarray]] = {
    "photograph coffee": partial(crop, "coffee"),
    "photograph rocket": partial(crop, "rocket"),
    "photograph chelsea": partial(crop, "chelsea"),
    "texture grass": partial(crop, "grass"),
    "night sky": partial(crop, "hubble_deep_field"),
    "printed page": partial(crop, "page"),
    "handwriting": partial(crop, "text"),
    "silhouette": partial(crop, "horse", top=0.2, left=0.3),
    "line art": line_art,
    "screenshot": screenshot,
    "checkerboard": partial(crop, "checkerboard"),
    "noise": noise,
}


def score(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR in dB, infinite for equal images."""
    pair = (torch.from_numpy(each[None].astype(np.float64)) for each in (image, truth))
    return float(psnr(*pair, 255))


def damaged(image: np.ndarray, name: str) -> np.ndarray:
    """Set a fraction of the entries to black or white."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    hit = rng.random(image.shape) < LEVEL
    return np.where(hit, rng.choice([0, 255], image.shape), image).astype(np.uint8)


def format_psnr(decibels: float) -> str:
    return "unchanged" if math.isinf(decibels) else f"{decibels:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="CSV file, one row per image")
    parser.add_argument("--images", nargs="+", choices=list(IMAGES), default=list(IMAGES), metavar="NAME")
    parser.add_argument("--size", type=int, default=96, help="side in pixels; default: %(default)s")
    parser.add_argument("--preset", choices=[name for name in PRESETS if PRESETS[name].refined], default="quick")
    parser.add_argument("--iterations", type=int, help="number of iterations; default: as in the preset")
    options = parser.parse_args()
    rows: list[dict[str, str]] = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    known = {(row["preset"], row["size"], row["image"]) for row in rows}

    def recovered(image: np.ndarray) -> np.ndarray:
        settings = {"preset": options.preset, "iterations": options.iterations}
        return np.asarray(recover_image(image, device="cpu", progress=False, **settings).image)

    for name in options.images:
        if (options.preset, str(options.size), name) in known:
            continue
        image = IMAGES[name](options.size)
        worse = damaged(image, name)
        scores = (score(recovered(image), image), score(worse, image), score(recovered(worse), image))
        row = dict(zip(COLUMNS, (options.preset, str(options.size), name, *map(format_psnr, scores)), strict=True))
        with options.out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not rows:
                writer.writeheader()
            writer.writerow(row)
        rows.append(row)
        print(f"{name}: {scores}", file=sys.stderr)
    print("| preset, size | image | undamaged | with 1 %: input | output |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        cells = (f"{row['preset']}, {row['size']}", row["image"], row["undamaged"], row["input"], row["output"])
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
