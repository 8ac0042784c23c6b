"""Memory that the recovery of images needs, by a measured model, and the tile size that fits.

Shapes: C channels, H×W pixels; a network works at H'×W' pixels, see :mod:`dop_lightning.model.signals.unet.skip_unet`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from dop_lightning.engine.abreast import is_small
from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.roster import TILES_AT_WORK
from dop_lightning.foundation.machine import available_memory, has_bfloat16_units
from dop_lightning.foundation.units import format_bytes
from dop_lightning.images.presets import Precision, Preset
from dop_lightning.images.tiles import cover
from dop_lightning.model.signals.unet import kernels
from dop_lightning.model.signals.unet.skip_network import working_size

BYTES_A_PIXEL = {
    "plain": {False: (1609.0, 86.1), True: (1154.0, 57.6)},
    "fused": {False: (639.0, 48.7), True: (372.0, 24.7)},
}
"""(fixed, times width) bytes that one iteration takes for a working pixel, in fp32 and bf16: of a network of plain
operations, and of one that runs by kernels.

By ``python scripts/measure_memory.py``, with and without ``--plain``; single cases are up to a fifth off.
"""

BYTES_OF_FILTER = {"working": 1600.0, "tile": 20.0, "whole": 32.0}
"""Bytes without a network: for a pixel of the tile that is restored; kept for an entry of each tile (y, X̂ and the
probability of corruption); and for an entry of the whole (the file, y, what is blended, pictures).

By ``python scripts/measure_large.py``, with and without ``--size 2000 1500``.
"""

SAFETY = 1.25
"""Iterations are taken to need this much more than the measured model says."""

PROCESS = 750 * 2**20
"""Bytes of Python, PyTorch and Lightning."""

SHARE_FOR_IMAGES = 0.8
"""Of the memory that is free, what the recovery of images may take where nothing else is said."""

TILES = (512, 384, 256, 192, 128, 96, 64)
"""Sides of tiles to choose from: multiples of the network's 32."""

Shape = tuple[int, int, int]


def run_memory(
    shapes: Iterable[Shape], width: int, bf16: bool, tile: int | None = None, *, fused: bool = False, threads: int = 1
) -> int:
    """Bytes that a run takes. Images and some of their tiles have a network, and one at a time does its iterations.

    Small tiles do so side by side, one per thread (:mod:`dop_lightning.engine.abreast`).

    Args:
        shapes: (C, H, W) of the images.
        width: channels of the network, 0 without one.
        bf16: whether it computes in bf16.
        tile: side of the tiles, ``None`` for whole images.
        fused: whether it runs by :mod:`dop_lightning.model.signals.unet.kernels`.
        threads: of the CPU; 1 on a GPU.
    """
    fixed, slope = BYTES_A_PIXEL["fused" if fused else "plain"][bf16]
    kept, working = 0.0, 0.0
    parts: list[float] = []  # of tiles and images, which take turns
    for c, h, w in shapes:
        grid = cover((h, w), tile or max(8, h, w))
        if width == 0:
            kept += c * len(grid.places) * math.prod(grid.tile) * BYTES_OF_FILTER["tile"]
            kept += c * h * w * BYTES_OF_FILTER["whole"]
            at_once = min(threads, len(grid.places)) if math.prod(grid.tile) <= Interpolation.largest_abreast else 1
            working = max(working, at_once * BYTES_OF_FILTER["working"] * math.prod(grid.tile))
            continue
        pixels = math.prod(working_size(grid.tile))
        network = 16 * 140 * width**2  # parameters, gradients, what the optimizer remembers and works with
        part = network + 60 * c * math.prod(grid.tile)  # y, g, h, truth, average, weights and copies
        if len(grid.places) == 1:
            parts.append(part)
            kept += 100 * c * h * w  # reading, scores and pictures of the whole
        else:
            parts += [part] * len(grid.places)
            # y, truth and mask of each tile; the whole as without a network
            kept += len(grid.places) * 9 * c * math.prod(grid.tile) + c * h * w * BYTES_OF_FILTER["whole"]
        at_once = min(threads, len(grid.places)) if is_small(grid.tile) else 1
        working = max(working, at_once * SAFETY * (fixed + slope * width) * pixels)
    begun = sum(sorted(parts, reverse=True)[: max(TILES_AT_WORK, 2 * threads)])
    return PROCESS + round(kept + begun + working)


def choose_tile(
    shapes: Iterable[Shape],
    width: int,
    bf16: bool,
    limit: int,
    *,
    fused: bool = False,
    threads: int = 1,
    name: str = "max-memory",
) -> int | None:
    """The side of the tiles with which a run stays below a limit of memory.

    Args:
        shapes: (C, H, W) of the images.
        width: channels of the network.
        bf16: whether it computes in bf16.
        limit: bytes.
        fused: whether it runs by :mod:`dop_lightning.model.signals.unet.kernels`.
        threads: of the CPU; 1 on a GPU.
        name: of the setting that limits it, for errors.

    Returns:
        ``None`` where whole images fit, else the largest of :data:`TILES` that fits.

    Raises:
        ValueError: not even the smallest fits.
    """
    shapes = list(shapes)
    for tile in (None, *TILES):
        if run_memory(shapes, width, bf16, tile, fused=fused, threads=threads) <= limit:
            return tile
    least = min(run_memory(shapes, width, bf16, tile, fused=fused, threads=threads) for tile in TILES)
    raise ValueError(
        f"{name} must be at least {math.ceil(least / 2**20)}M for these images, even in tiles, at width {width}, "
        f"got {format_bytes(limit)} (by default four fifths of what is free); fewer images at a time, smaller ones, "
        "and a smaller width take less"
    )


@dataclass(frozen=True)
class RecoveryCost:
    """Memory that the recovery of images needs on a device, and the tile size that fits.

    Attributes:
        shapes: (C, H, W) of the images, at least one.
        width: channels of the network.
        preset: of the recovery.
        precision: of the network.
        device: where it runs.
        option: the name of the option that limits the memory, for errors.
        subject: what errors call the images.
    """

    shapes: Sequence[Shape]
    width: int
    preset: Preset
    precision: Precision
    device: torch.device
    option: str = "max-memory"
    subject: str = "these images"

    @property
    def bf16(self) -> bool:
        """Whether the network computes in bf16."""
        return self.precision == "bf16" or (self.precision == "auto" and has_bfloat16_units(self.device))

    @property
    def fused(self) -> bool:
        """Whether the network runs by kernels."""
        return self.device.type == "cpu" and self.preset.refined and kernels.library() is not None

    def memory(self, tile: int | None) -> int:
        """Return the bytes that the recovery needs in tiles of this side, ``None`` for whole images."""
        return run_memory(self.shapes, self.width, self.bf16, tile, fused=self.fused, threads=self.threads)

    @property
    def threads(self) -> int:
        """Threads that tiles are shared among."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def choose_tile(self, limit: int | None) -> int | None:
        """Return the side of the preset's tiles for large images, and smaller ones where these do not fit.

        ``None`` where images are recovered whole: the preset has no tiles or no image is large, and all fit.

        Args:
            limit: bytes, ``None`` for :data:`SHARE_FOR_IMAGES` of what is free.

        Raises:
            ValueError: not even the smallest tiles fit.
        """
        free = limit or round(SHARE_FOR_IMAGES * available_memory(self.device))
        wanted = self.preset.tile_for(max(max(shape[1:]) for shape in self.shapes))
        if wanted is not None and self.memory(wanted) <= free:
            return wanted
        told = (self.shapes, self.width, self.bf16, free)
        return choose_tile(*told, fused=self.fused, threads=self.threads, name=self.option)

    def check_tile(self, tile: int | None, limit: int | None) -> int | None:
        """Return the requested side if it fits.

        Args:
            tile: the side, ``None`` for whole images.
            limit: bytes, ``None`` for no limit.

        Raises:
            ValueError: it does not fit.
        """
        need = self.memory(tile)
        if limit is not None and need > limit:
            how = f"in tiles of {tile}×{tile}" if tile else "as a whole"
            raise ValueError(
                f"{self.option} must be at least {math.ceil(need / 2**20)}M for {self.subject} {how} at width "
                f"{self.width}, got {format_bytes(limit)}"
            )
        return tile


def block_length(pixels: int, width: int, device: str = "cpu") -> int:
    """Iterations of a training step that take about a second on two cores, from 1 to 10.

    On a GPU, where they take a hundredth of that and less, 25, where refinement looks at its weights: images that take
    turns have a graph of their iterations captured anew in each step, for which shorter ones are not worth it.

    >>> block_length(128 * 128, 64), block_length(512 * 512, 128), block_length(512 * 512, 128, "cuda")
    (10, 1, 25)
    """
    if device == "cuda":
        return 25
    return max(1, min(10, round(10 * (128 * 128 * 64**2) / (pixels * max(1, width) ** 2))))
