"""Draw the figure of docs/damage.md: a photograph with creases, the detected creases, and the restored photograph.

    python scripts/draw_creases.py --out docs/images/creases.png

The script adds white creases to a bundled photograph and restores it with ``damage="scratches"``.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dop_lightning import recover_image
from dop_lightning.engine.steps.clean_entries import structured_damage
from dop_lightning.images.formats import find_images, read_image
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import Scratches
from dop_lightning.problems.randomness import stream

ENLARGED = 2
"""Pixels of the figure per pixel of the photograph."""

GAP = 8
"""White pixels between two panels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--photo", default="coffee", help="a bundled photograph or a file; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of the creases; default: %(default)s")
    parser.add_argument("--iterations", type=int, help="default: as in the preset quick")
    options = parser.parse_args()
    torch.set_num_threads(1)
    image = read_image(find_images([options.photo])[0]).values
    creased = Scratches(0.05, 1.0, longest=1.5).corrupt(image, stream(options.seed, "corruption")).observation
    creased = (creased * 255).round() / 255
    found = structured_damage(creased, "scratches")
    restored = recover_image(
        creased.permute(1, 2, 0).numpy(),
        value_range=(0, 1),
        preset="quick",
        iterations=options.iterations,
        damage="scratches",
        device="cpu",
        progress=False,
    )
    after = torch.from_numpy(restored.image).permute(2, 0, 1)
    before, now = (float(psnr(each[None], image[None], 1.0)) for each in (creased, after))
    print(f"{before:.2f} dB with creases, {now:.2f} dB restored")
    write([creased, found.expand(image.shape).to(image), after], options.out)


def write(panels: list[Tensor], file: Path) -> None:
    """Write images ``(C, H, W)`` in [0, 1] side by side."""
    gap = torch.ones(panels[0].shape[0], panels[0].shape[1], GAP // ENLARGED)
    row = torch.cat([panel for each in panels for panel in (each, gap)][:-1], dim=2)
    pixels = Image.fromarray((row.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
    pixels = pixels.resize((ENLARGED * pixels.width, ENLARGED * pixels.height), Image.Resampling.NEAREST)
    pixels.save(file, optimize=True)


if __name__ == "__main__":
    main()
