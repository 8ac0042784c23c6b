"""Measure how well structured damage is found: the F1 of its support, from the damaged image alone.

    python scripts/measure_damage.py --out runs/damage

One row for each kind of damage, one column for each photograph of scikit-image (256×256 pixels of its middle), and
``results.csv`` in the folder. The first rows are the share that is found in the undamaged photograph, and the option
that ``auto`` suggests for it. ``--undamaged`` prints these rows alone, ``--psnr``
also recovers each image, with ``--damage points`` and with the option that is measured, by the preset ``quick``; it
needs minutes.
"""

import argparse
import csv
import sys
from pathlib import Path

import torch
from crops import middle
from made_damage import DeadRectangles, Dust, Text
from torch import Tensor

from dop_lightning import recover_image
from dop_lightning.engine.steps.clean_entries import likely_damage, structured_damage
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import DeadLines, Mixture, Noise, NoNoise, SaltAndPepper, Scratches
from dop_lightning.problems.randomness import stream

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
"""The first three are what the detectors were made with."""

OPTIONS = ("auto", "scratches", "rectangles", "dust", "text")
"""What is looked for in undamaged photographs."""

UNSEEN = -7.0
"""A value that no image has: what has it is the support."""

KINDS: dict[str, tuple[str, Noise, Noise]] = {}
"""Of each kind of damage: the option, the noise, and the same noise with the value :data:`UNSEEN`."""
for _value in (0.0, 0.5, 1.0, "random", "noise"):
    for _per in ("pixel", "entry"):
        _name = f"lines {_value}" + (" one channel" if _per == "entry" else "")
        KINDS[_name] = ("auto", DeadLines(0.02, _value, _per), DeadLines(0.02, UNSEEN, _per))  # type: ignore[arg-type]
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


def damaged(image: Tensor, kind: str, seed: int, impulses: float) -> tuple[Tensor, Tensor]:
    """The damaged image, of 8 bits, and the support of the structured damage."""
    _, noise, marked = KINDS[kind]
    support = marked.corrupt(image, stream(seed, "corruption")).observation == UNSEEN
    besides = SaltAndPepper(impulses) if impulses else NoNoise()
    observation = Mixture([noise, besides]).corrupt(image, stream(seed, "corruption")).observation
    return (observation * 255).round() / 255, support


def f1(found: Tensor, support: Tensor) -> float:
    """2·|both| / (|found| + |support|)."""
    return 2 * float((found & support).sum()) / max(1.0, float(found.sum() + support.sum()))


def gain(image: Tensor, observation: Tensor, damage: str) -> tuple[float, float]:
    """The PSNR of the recovery with isolated damage alone, and with an option, in dB."""
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
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--photographs", nargs="+", default=PHOTOGRAPHS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--impulses", type=float, default=0.0, help="share of salt and pepper besides")
    parser.add_argument("--side", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--undamaged", action="store_true", help="undamaged photographs only")
    parser.add_argument("--psnr", action="store_true", help="recover the images as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["kind", "impulses", "photograph", "seed", "f1", "psnr_points", "psnr"])
        print(" ".join(["kind".ljust(28), *options.photographs]))
        for option in OPTIONS:
            shares = {
                name: float(structured_damage(middle(name, options.side), option).float().mean())
                for name in options.photographs
            }
            for name, share in shares.items():
                table.writerow([f"undamaged {option}, share", 0, name, "", f"{share:.4f}", "", ""])
            words = [f"{share:.3f}".ljust(len(name)) for name, share in shares.items()]
            print(" ".join([f"undamaged {option}, share".ljust(28), *words]), flush=True)
        likely = {name: likely_damage(middle(name, options.side)) or "none" for name in options.photographs}
        words = [word.ljust(len(name)) for name, word in likely.items()]
        print(" ".join(["undamaged, suggested".ljust(28), *words]), flush=True)
        for kind in [] if options.undamaged else options.kinds:
            means = []
            for name in options.photographs:
                image, scores = middle(name, options.side), []
                for seed in range(options.seeds):
                    y, support = damaged(image, kind, seed, options.impulses)
                    scores.append(f1(structured_damage(y, KINDS[kind][0]), support))
                    decibels = gain(image, y, KINDS[kind][0]) if options.psnr else ("", "")
                    table.writerow([kind, options.impulses, name, seed, f"{scores[-1]:.4f}", *decibels])
                    if options.psnr:
                        print(f"  {name} {decibels[0]:.2f} -> {decibels[1]:.2f} dB", file=sys.stderr)
                means.append(f"{sum(scores) / len(scores):.3f}".ljust(len(name)))
            print(" ".join([kind.ljust(28), *means]), flush=True)


if __name__ == "__main__":
    main()
