"""``dop recover IMAGE… --out DIR``: restore image files with a config of ``dop fit``."""

import argparse
import atexit
import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dop_lightning.cli.experiments import lightning_cli as lightning
from dop_lightning.cli.experiments import runner
from dop_lightning.cli.options import DEVICES
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.names import printable
from dop_lightning.foundation.units import format_bytes, parse_bytes
from dop_lightning.images.cost import RecoveryCost, block_length
from dop_lightning.images.formats import find_images, image_shape
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.tiles import MIN_TILE, Tile, cover, tile_text
from dop_lightning.runs.folder import saved_settings

PREVIEW_EVERY = 1.0
"""Minimum number of seconds between two previews."""


def config(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return the config of ``dop fit`` for the options, and a note about its memory.

    Raises:
        ValueError: an option is out of range, or a file is not an image.
    """
    preset = PRESETS[options.preset]
    width, iterations = preset.size(options.width, options.iterations)
    one_of("device", options.device, DEVICES)
    if options.undamaged is not None and not preset.refined:
        raise ValueError(f"--undamaged is not supported by the preset {options.preset}, got {options.undamaged[0]!r}")
    paths = find_images(options.images)
    shapes = [image_shape(path) for path in paths]
    device = torch.device("cuda" if options.device in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")
    cost = RecoveryCost(shapes, width, preset, options.precision, device)
    tile = _choose_tile(options, cost)
    alpha = None if options.alpha is None else positive("alpha", options.alpha)
    pixels = max(math.prod(cover((h, w), tile or max(MIN_TILE, h, w)).tile) for _, h, w in shapes)
    block = block_length(pixels, width, device.type)
    settings = {
        "model": preset.recipe(
            width, options.precision, options.per, options.outliers, alpha, block, options.damage, options.dense
        ).model(),
        "data": {
            "class_path": "ImageDataModule",
            "init_args": {
                "images": [_absolute_path(path) for path in paths],
                "truth": _matching_files(options.truth),
                "mask": _matching_files(options.mask),
                "undamaged": _matching_files(options.undamaged),
                "value_range": options.range,
                "tile": list(tile) if isinstance(tile, tuple) else tile,
                "seeds": [options.seed],
            },
        },
        "trainer": {
            "max_steps": iterations,
            "default_root_dir": str(options.out),
            "accelerator": DEVICES[options.device],
        },
        "progress": {"estimate": True},
        "preview": {"every": PREVIEW_EVERY},
    }
    return settings, _memory_note(cost, tile)


def _matching_files(patterns: Sequence[str] | None) -> list[str] | None:
    """Return the files of each pattern, without duplicates."""
    return None if patterns is None else [_absolute_path(path) for each in patterns for path in find_images(each)]


def _absolute_path(path: Path) -> str:
    """Return the absolute path of a file as text for a config.

    Raises:
        ValueError: the path is not valid UTF-8.
    """
    text = str(path.resolve())
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{printable(text)}: the path of a file must be text in UTF-8; rename it")
    return text


def _choose_tile(options: argparse.Namespace, cost: RecoveryCost) -> Tile | None:
    """Return the size of the tiles, or ``None`` for whole images."""
    limit = None if options.max_memory is None else parse_bytes(options.max_memory)
    if options.tile is not None:
        return cost.check_tile(at_least("tile", options.tile, MIN_TILE), limit)
    if saved := saved_settings(options.out, "data", "init_args"):
        # a resumed run keeps its tiles, regardless of the memory that is free now
        return cost.check_tile(saved.get("tile"), limit)
    return cost.choose_tile(limit)


def _memory_note(cost: RecoveryCost, tile: Tile | None) -> str:
    """Return a note about the memory of the run."""
    _, height, width = cost.shapes[0]
    what = f"{width}×{height} pixels" if len(cost.shapes) == 1 else f"{len(cost.shapes)} images"
    if tile is not None and any(len(cover(shape[1:], tile).places) > 1 for shape in cost.shapes):
        what += f" in tiles of {tile_text(tile)}"
    return f"{what}: about {format_bytes(cost.memory(tile))} of memory"


def run(options: argparse.Namespace) -> int:
    """Restore the images.

    Args:
        options: options of the command line.

    Raises:
        ValueError: see :func:`config`.
    """
    runner.prepare()
    atexit.register(gc.freeze)  # at exit, the system frees the networks of many tiles faster than Python
    return lightning.fit_config(*config(options))
