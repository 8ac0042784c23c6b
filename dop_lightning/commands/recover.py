"""``dop recover IMAGE… --out DIR``: restore image files. It writes a config and lets ``dop fit`` do the work."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dop_lightning.checks import at_least, positive
from dop_lightning.commands import lightning, runner
from dop_lightning.files.images import find_images, read_image

PRESETS = {
    "quick": {"width": 32, "iterations": 1500, "alpha": 400.0},
    "default": {"width": 64, "iterations": 3000, "alpha": 400.0},
    "paper": {"width": 128, "iterations": 150_000, "alpha": 500.0},
}
"""The paper's setting, and two that a laptop runs."""


class _Parser(argparse.ArgumentParser):
    """Its errors are the caller's one line, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parser() -> argparse.ArgumentParser:
    """The options of ``dop recover``."""
    presets = "; ".join(
        f"{name}: width {p['width']}, {p['iterations']} iterations, alpha {p['alpha']:g}" for name, p in PRESETS.items()
    )
    result = _Parser(
        prog="dop recover",
        description="Restore photographs with dead or random pixels. Nothing needs to be known of the damage.",
        epilog=f"Presets: {presets}. Ctrl-C writes what is recovered so far; the same command goes on from there.",
    )
    result.add_argument(
        "images", nargs="+", metavar="IMAGE", help="8-bit PNG or JPEG files, grey or RGB; folders; globs"
    )
    result.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    result.add_argument("--truth", nargs="+", metavar="FILE", help="clean images, one an IMAGE, for scores alone")
    result.add_argument("--preset", choices=PRESETS, default="default", help="default: %(default)s")
    result.add_argument("--iterations", type=int, metavar="N", help="gradient iterations, at least 1")
    result.add_argument("--alpha", type=float, metavar="A", help="ratio of the learning rates, above 0")
    result.add_argument("--width", type=int, metavar="W", help="channels of the network, at least 1")
    result.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    result.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, gpu, cuda or mps; default: %(default)s"
    )
    result.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="inside the network")
    return result


def config(options: argparse.Namespace) -> dict[str, Any]:
    """The config of ``dop fit`` that options stand for.

    Raises:
        ValueError: an option is out of range, or a file is no image.
    """
    preset = PRESETS[options.preset]
    width = at_least("width", preset["width"] if options.width is None else options.width, 1)  # type: ignore[arg-type]
    iterations = preset["iterations"] if options.iterations is None else options.iterations
    at_least("iterations", iterations, 1)  # type: ignore[arg-type]
    alpha = positive("alpha", preset["alpha"] if options.alpha is None else options.alpha)
    device = {"cuda": "gpu"}.get(options.device, options.device)
    if device not in ("auto", "cpu", "gpu", "mps"):
        raise ValueError(f"device must be one of auto, cpu, gpu, cuda, mps, got {options.device!r}")
    paths = find_images(options.images)
    pixels = max(image.values[0].numel() for image in map(read_image, paths))
    return {
        "model": {
            "signal": {"class_path": "SkipUNet", "init_args": {"width": width, "precision": options.precision}},
            "corruption": {"class_path": "HadamardCorruption", "init_args": {"scale": 1e-5, "tied": False}},
            "loss": {"class_path": "SquaredLoss", "init_args": {"reduction": "mean"}},
            "tau": 1.0,
            "alpha": alpha,
            "block": block_length(pixels, width),
            "evaluate_every": 100,
        },
        "data": {
            "class_path": "ImageDataModule",
            "init_args": {
                "images": [str(path.resolve()) for path in paths],
                "truth": None
                if options.truth is None
                else [str(p.resolve()) for t in options.truth for p in find_images(t)],
                "seeds": [options.seed],
            },
        },
        "trainer": {"max_steps": iterations, "default_root_dir": str(options.out), "accelerator": device},
    }


def block_length(pixels: int, width: int) -> int:
    """Iterations of a training step that take about a second on two cores, from 1 to 10.

    >>> block_length(128 * 128, 64), block_length(512 * 512, 128)
    (10, 1)
    """
    return max(1, min(10, round(10 * (128 * 128 * 64**2) / (pixels * width**2))))


def run(_: str, arguments: Sequence[str]) -> int:
    """Restore the images.

    Raises:
        ValueError: an option is unknown or missing; or see :func:`config`.
    """
    options = parser().parse_args(arguments)
    runner.prepare()
    return lightning.fit_config(config(options))
