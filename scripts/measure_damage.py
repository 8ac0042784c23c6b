"""Measure the detection of structured damage: F1 score of the support that is estimated from the damaged image.

    python scripts/measure_damage.py --out runs/damage

The table has one row per kind of damage, and one column per photograph of scikit-image (central 256×256 pixels); the
folder contains ``results.csv``. The first rows list the fraction detected in the undamaged photographs, and the option
that ``auto`` suggests for them. ``--undamaged`` prints only these rows. ``--psnr`` also recovers each image with the
preset ``quick``, with ``--damage points`` and with the option of the row, which takes minutes. ``--impulses`` adds
isolated outliers, to the undamaged photographs too.
"""

import argparse
import csv
import sys
from pathlib import Path

import torch
from crops import middle
from synthetic_damage import DeadRectangles, Dust, Text
from torch import Tensor

from dop_lightning import recover_image
from dop_lightning.engine.steps.clean_entries import likely_damage, structured_damage
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import (
    DeadLines,
    Mixture,
    Noise,
    NoNoise,
    RandomValuedImpulse,
    SaltAndPepper,
    Scratches,
)
from dop_lightning.problems.randomness import stream

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
"""The detectors were developed with the first three."""

OPTIONS = ("auto", "scratches", "rectangles", "dust", "text")
"""Kinds of damage to detect in undamaged photographs."""

UNSEEN = -7.0
"""A value outside the range of images, which marks the support."""

KINDS: dict[str, tuple[str, Noise, Noise]] = {}
"""For each kind of damage: the option, the noise, and the same noise with the value :data:`UNSEEN`."""
for _value in (0.0, 0.5, 1.0, "random", "noise"):
    for _per in ("pixel", "entry"):
        _name = f"lines {_value}" + (" one channel" if _per == "entry" else "")
        KINDS[_name] = ("auto", DeadLines(0.02, _value, _per), DeadLines(0.02, UNSEEN, _per))
for _ratio in (0.02, 0.04):
    for _value in (0.0, 0.5, 1.0, "random"):
        KINDS[f"scratches {_value} {_ratio}"] = (
            "scratches",
            Scratches(_ratio, _value),  # type: ignore[arg-type]
            Scratches(_ratio, UNSEEN),
        )
    for _value in (0.0, 1.0):
        KINDS[f"scratches {_value} half {_ratio}"] = (
            "scratches",
            Scratches(_ratio, _value, opacity=0.5),
            Scratches(_ratio, UNSEEN),
        )
for _value in (0.0, 0.5, 1.0, "colour", "noise"):
    KINDS[f"rectangles {_value}"] = ("rectangles", DeadRectangles(_value), DeadRectangles(UNSEEN))  # type: ignore[arg-type]
for _value in (0.0, 1.0):
    for _opacity in (1.0, 0.5):
        KINDS[f"dust {_value}" + (" half" if _opacity < 1 else "")] = (
            "dust",
            Dust(0.02, _value, _opacity),
            Dust(0.02, UNSEEN),
        )
for _colour in ("white", "black", "orange"):
    for _outline in (False, True):
        KINDS[f"text {_colour}" + (" outlined" if _outline else "")] = (
            "text",
            Text(_colour, _outline),
            Text(UNSEEN, _outline),
        )
for _value, _name in ((0.0, "dark"), (1.0, "bright")):
    KINDS[f"creases {_name}"] = ("scratches", Scratches(0.02, _value, opacity=0.8), Scratches(0.02, UNSEEN))


VALUES = {"salt": SaltAndPepper, "random": RandomValuedImpulse}
"""Kinds of isolated outliers."""


def eight_bits(image: Tensor, noise: Noise, seed: int) -> Tensor:
    """Return the 8-bit image with noise."""
    return (noise.corrupt(image, stream(seed, "corruption")).observation * 255).round() / 255


def damaged(image: Tensor, kind: str, seed: int, impulses: Noise) -> tuple[Tensor, Tensor]:
    """Return the damaged 8-bit image, and the support of the structured damage."""
    _, noise, marked = KINDS[kind]
    support = marked.corrupt(image, stream(seed, "corruption")).observation == UNSEEN
    return eight_bits(image, Mixture([noise, impulses]), seed), support


def f1(found: Tensor, support: Tensor) -> float:
    """Return 2·|both| / (|found| + |support|)."""
    return 2 * float((found & support).sum()) / max(1.0, float(found.sum() + support.sum()))


def gain(image: Tensor, observation: Tensor, damage: str) -> tuple[float, float]:
    """Return the PSNR in dB of the recovery for isolated damage only, and with an option."""
    array = observation.permute(1, 2, 0).numpy()
    scores = []
    for option in ("points", damage):
        recovered = recover_image(
            array, value_range=(0, 1), preset="quick", damage=option, device="cpu", progress=False
        )
        scores.append(float(psnr(torch.from_numpy(recovered.image).permute(2, 0, 1)[None], image[None], 1.0)))
    return scores[0], scores[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--photographs", nargs="+", default=PHOTOGRAPHS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--impulses", type=float, default=0.0, help="fraction of additional isolated outliers; default: %(default)s"
    )
    parser.add_argument("--values", choices=sorted(VALUES), default="salt", help="their values; default: %(default)s")
    parser.add_argument("--side", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--undamaged", action="store_true", help="only measure undamaged photographs")
    parser.add_argument("--psnr", action="store_true", help="also recover the images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    impulses = VALUES[options.values](options.impulses) if options.impulses else NoNoise()
    images = {name: middle(name, options.side) for name in options.photographs}
    undamaged = {name: eight_bits(image, impulses, 0) for name, image in images.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["kind", "impulses", "photograph", "seed", "f1", "psnr_points", "psnr"])
        print(" ".join(["kind".ljust(28), *options.photographs]))
        for option in OPTIONS:
            shares = {name: float(structured_damage(y, option).float().mean()) for name, y in undamaged.items()}
            for name, share in shares.items():
                table.writerow([f"undamaged {option}, share", options.impulses, name, "", f"{share:.4f}", "", ""])
            words = [f"{share:.3f}".ljust(len(name)) for name, share in shares.items()]
            print(" ".join([f"undamaged {option}, share".ljust(28), *words]), flush=True)
        likely = {name: likely_damage(y) or "none" for name, y in undamaged.items()}
        words = [word.ljust(len(name)) for name, word in likely.items()]
        print(" ".join(["undamaged, suggested".ljust(28), *words]), flush=True)
        for kind in [] if options.undamaged else options.kinds:
            means = []
            for name, image in images.items():
                scores = []
                for seed in range(options.seeds):
                    y, support = damaged(image, kind, seed, impulses)
                    scores.append(f1(structured_damage(y, KINDS[kind][0]), support))
                    decibels = gain(image, y, KINDS[kind][0]) if options.psnr else ("", "")
                    table.writerow([kind, options.impulses, name, seed, f"{scores[-1]:.4f}", *decibels])
                    if options.psnr:
                        print(f"  {name} {decibels[0]:.2f} -> {decibels[1]:.2f} dB", file=sys.stderr)
                means.append(f"{sum(scores) / len(scores):.3f}".ljust(len(name)))
            print(" ".join([kind.ljust(28), *means]), flush=True)


if __name__ == "__main__":
    main()
