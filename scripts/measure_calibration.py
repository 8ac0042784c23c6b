"""Measure the calibration of the probability that an entry is corrupted. Resumable.

    python scripts/measure_calibration.py --out calibration.csv --preset quick --size 96
    python scripts/measure_calibration.py --out calibration.csv --preset default --size 128 --images coffee rocket
    python scripts/measure_calibration.py --out calibration.csv --table     # only the table of finished rows

Full-resolution crops of photographs of scikit-image are corrupted by salt and pepper or random values, with 8 bits, and
recovered. An entry is corrupted if it differs from the truth. Two probabilities are evaluated on all entries: 1 − w,
with the weight w that the recovery uses, and the calibrated one, which is saved as `corruption_probability`. The table
lists two measures of each:

- ECE, the expected calibration error: the mean, over 15 bins of equal width weighted by their entries, of the distance
  between the mean probability of a bin and the fraction of its entries that are corrupted;
- the Brier score, the mean square of the probability minus 1 for corrupted entries, minus 0 for others.

The rows are saved in the CSV file, and the same command continues an interrupted measurement. The table has the mean
over the images, and in parentheses the largest ECE. The settings of the calibration were chosen on astronaut and
chelsea.
"""

import argparse
import csv
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from crops import crop_tensor
from torch import Tensor

from dop_lightning.engine.runners import run_to_end
from dop_lightning.images.presets import PRESETS, TAU
from dop_lightning.problems.noise import Noise, RandomValuedImpulse, SaltAndPepper
from dop_lightning.problems.problem import Problem

BINS = 15

NOISES = {"salt-and-pepper": SaltAndPepper, "random-values": RandomValuedImpulse}

LEVELS = {"salt-and-pepper": (0.1, 0.3, 0.5), "random-values": (0.1, 0.3)}

IMAGES = ("coffee", "rocket", "camera")
"""Images that were not used for tuning."""

KEYS = ("preset", "size", "noise", "level", "image")
MEASURES = ("corrupted", "mean_w", "mean_p", "ece_w", "ece_p", "brier_w", "brier_p", "seconds")


def calibration_error(probability: Tensor, happened: Tensor) -> float:
    """Return the ECE of probabilities (any shape) with respect to outcomes (bool).

    >>> calibration_error(torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([True, True, False, True]))
    0.25
    """
    p, was = probability.double().flatten(), happened.double().flatten()
    bins = (p * BINS).long().clamp_(0, BINS - 1)
    apart = torch.bincount(bins, weights=p - was, minlength=BINS)
    return round(float(apart.abs().sum() / len(p)), 12)


def brier_score(probability: Tensor, happened: Tensor) -> float:
    """Return the mean squared difference."""
    return float((probability.double() - happened.double()).square().mean())


def observe(image: str, size: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """Return the truth and the observation, in 8 bits, with the same random draw for all levels."""
    clean = crop_tensor(image, size)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{image} {size}".encode()))
    return clean, (noise.corrupt(clean, generator).observation * 255).round() / 255


def measure(options: argparse.Namespace, noise: str, level: float, image: str) -> dict[str, Any]:
    """Compute one row."""
    truth, observed = observe(image, options.size, NOISES[noise](level))
    corrupted = observed != truth
    preset = PRESETS[options.preset]
    problem = Problem(image, observed, truth=truth, data_range=1.0)
    begin = time.perf_counter()
    ending = run_to_end(preset.method(), problem, preset.iterations, block=10, tau=TAU, alpha=preset.alpha)
    seconds = time.perf_counter() - begin
    p = next(ending.outcomes()).corruption_probability
    if p is None:
        raise SystemExit(f"measure_calibration: error: {options.preset} does not drop s at --size {options.size}")
    w = 1 - ending.state.memory["clean"][0]  # type: ignore[attr-defined]
    return {
        "corrupted": float(corrupted.double().mean()),
        "mean_w": float(w.double().mean()),
        "mean_p": float(p.double().mean()),
        "ece_w": calibration_error(w, corrupted),
        "ece_p": calibration_error(p, corrupted),
        "brier_w": brier_score(w, corrupted),
        "brier_p": brier_score(p, corrupted),
        "seconds": round(seconds, 1),
    }


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of the file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a row."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*KEYS, *MEASURES], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the key of a row."""
    return tuple(str(row[key]) for key in KEYS)


def table(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| preset, size | noise | images | corrupted | ECE of 1 − w | ECE | Brier of 1 − w | Brier |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(key_of(row)[:-1], []).append(row)
    for (preset, size, noise, level), group in groups.items():
        values = {name: [float(row[name]) for row in group] for name in MEASURES}
        yield (
            f"| {preset}, {size} | {noise.replace('-', ' ')} {float(level):.0%} | "
            f"{', '.join(row['image'] for row in group)} | {mean(values['corrupted']):.3f} | "
            f"{mean(values['ece_w']):.4f} ({max(values['ece_w']):.4f}) | "
            f"{mean(values['ece_p']):.4f} ({max(values['ece_p']):.4f}) | "
            f"{mean(values['brier_w']):.5f} | {mean(values['brier_p']):.5f} |"
        )


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="CSV file, one row per recovery")
    parser.add_argument("--images", nargs="+", default=IMAGES, help="names in skimage.data; default: %(default)s")
    parser.add_argument("--size", type=int, default=96, help="side of the crops in pixels; default: %(default)s")
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=list(NOISES), help="default: both")
    parser.add_argument("--levels", nargs="+", type=float, help="fractions of corrupted entries; default: 0.1 to 0.5")
    parser.add_argument("--preset", choices=[name for name in PRESETS if PRESETS[name].refined], default="quick")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; default: %(default)s")
    parser.add_argument("--table", action="store_true", help="only print the table of finished rows")
    return parser.parse_args()


def main() -> None:
    """Measure the missing rows, and print the table."""
    options = parse()
    torch.set_num_threads(options.threads)
    done = {key_of(row) for row in read(options.out)}
    for noise in [] if options.table else options.noise:
        for level in options.levels or LEVELS[noise]:
            for image in options.images:
                row: dict[str, Any] = dict(zip(KEYS, (options.preset, options.size, noise, level, image), strict=True))
                if key_of(row) in done:
                    continue
                row |= measure(options, noise, level, image)
                append(options.out, row)
                print(*key_of(row), *(f"{name} {row[name]:.4g}" for name in MEASURES), file=sys.stderr, flush=True)
    print("\n".join(table(read(options.out))))


if __name__ == "__main__":
    main()
