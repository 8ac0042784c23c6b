"""Memory needed to recover images, estimated by a measured model, and the tile size that fits.

Shapes: C channels, H×W pixels; networks work on H'×W' pixels, see :mod:`dop_lightning.model.signals.unet.skip_unet`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from dop_lightning.engine.concurrency import is_small
from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.roster import TILES_AT_WORK
from dop_lightning.foundation.machine import available_memory, has_bfloat16_units
from dop_lightning.foundation.units import format_bytes
from dop_lightning.images.presets import Precision, Preset
from dop_lightning.images.tiles import MIN_TILE, Tile, cover, sides_of, tile_text
from dop_lightning.model.signals.unet import kernels
from dop_lightning.model.signals.unet.skip_network import working_size

BYTES_PER_PIXEL = {
    "plain": {False: (1609.0, 86.1), True: (1154.0, 57.6)},
    "fused": {False: (639.0, 48.7), True: (372.0, 24.7)},
}
"""Bytes per working pixel of one iteration, (constant, factor of the width), without and with bf16, for networks of
plain operations and for fused kernels.

Measured by ``python scripts/measure_memory.py``, with and without ``--plain``; errors of single cases are up to 20 %.
"""

BYTES_OF_FILTER = {"working": 800.0, "tile": 20.0, "whole": 32.0}
"""Bytes without a network: per pixel of the tile being restored; per entry of each tile (y, X̂ and the probability of
corruption); and per entry of the whole image (the file, y, the blended result, pictures).

Measured by ``python scripts/measure_large.py``, with and without ``--size 2000 1500``.
"""

SAFETY = 1.25
"""Safety factor on the memory of iterations in the measured model."""

PROCESS = 750 * 2**20
"""Bytes used by Python, PyTorch and Lightning."""

MEMORY_FRACTION = 0.8
"""Default fraction of the free memory that the recovery of images may use."""

TILES = (512, 384, 256, 192, 128, 96, 64)
"""Candidate sides of tiles: multiples of 32, as the network requires."""

FILTER_TILES = (1024, 896, 768, 640, *TILES)
"""Candidate sides of tiles without a network."""

Shape = tuple[int, int, int]


def run_memory(
    shapes: Iterable[Shape], width: int, bf16: bool, tile: Tile | None = None, *, fused: bool = False, threads: int = 1
) -> int:
    """Return the number of bytes that a run needs.

    Whole images and a limited number of tiles have a network at a time, and one of them iterates. Small tiles iterate
    in parallel, one per thread (:mod:`dop_lightning.engine.concurrency`).

    Args:
        shapes: (C, H, W) of the images.
        width: channels of the network, 0 without a network.
        bf16: whether the network computes in bf16.
        tile: side of the tiles, or (height, width); ``None`` for whole images.
        fused: whether the network uses :mod:`dop_lightning.model.signals.unet.kernels`.
        threads: number of CPU threads; 1 on a GPU.
    """
    fixed, slope = BYTES_PER_PIXEL["fused" if fused else "plain"][bf16]
    kept, working = 0.0, 0.0
    parts: list[float] = []  # bytes of each tile or whole image with a network; they iterate in turn
    for c, h, w in shapes:
        grid = cover((h, w), tile or max(MIN_TILE, h, w))
        if width == 0:
            kept += c * len(grid.places) * math.prod(grid.tile) * BYTES_OF_FILTER["tile"]
            kept += c * h * w * BYTES_OF_FILTER["whole"]
            at_once = (
                min(threads, len(grid.places)) if math.prod(grid.tile) <= Interpolation.max_concurrent_pixels else 1
            )
            working = max(working, at_once * BYTES_OF_FILTER["working"] * math.prod(grid.tile))
            continue
        pixels = math.prod(working_size(grid.tile))
        network = 16 * 140 * width**2  # parameters, gradients, optimizer state and workspace
        part = network + 60 * c * math.prod(grid.tile)  # y, g, h, truth, average, weights and copies
        if len(grid.places) == 1:
            parts.append(part)
            kept += 100 * c * h * w  # reading, scores and pictures of the whole image
        else:
            parts += [part] * len(grid.places)
            # y, truth and mask of each tile; the whole image as without a network
            kept += len(grid.places) * 9 * c * math.prod(grid.tile) + c * h * w * BYTES_OF_FILTER["whole"]
        at_once = min(threads, len(grid.places)) if is_small(grid.tile) else 1
        working = max(working, at_once * SAFETY * (fixed + slope * width) * pixels)
    active = sum(sorted(parts, reverse=True)[: max(TILES_AT_WORK, 2 * threads)])
    return PROCESS + round(kept + active + working)


def choose_tile(
    shapes: Iterable[Shape],
    width: int,
    bf16: bool,
    limit: int,
    *,
    tiles: Sequence[int | None] = (None, *TILES),
    fused: bool = False,
    threads: int = 1,
    name: str = "max-memory",
) -> int | None:
    """Choose the side of the tiles so that a run stays within a memory limit.

    Args:
        shapes: (C, H, W) of the images.
        width: channels of the network.
        bf16: whether the network computes in bf16.
        limit: memory limit in bytes.
        tiles: sides to try, in this order; ``None`` for whole images.
        fused: whether the network uses :mod:`dop_lightning.model.signals.unet.kernels`.
        threads: number of CPU threads; 1 on a GPU.
        name: name of the setting of the limit, for errors.

    Returns:
        The first of the sides that fits.

    Raises:
        ValueError: even the smallest tiles do not fit.
    """
    shapes = list(shapes)
    for tile in tiles:
        if run_memory(shapes, width, bf16, tile, fused=fused, threads=threads) <= limit:
            return tile
    least = min(run_memory(shapes, width, bf16, tile, fused=fused, threads=threads) for tile in tiles)
    raise ValueError(
        f"{name} must be at least {math.ceil(least / 2**20)}M for these images, even in tiles, at width {width}, "
        f"got {format_bytes(limit)} (by default four fifths of the free memory). Use fewer or smaller images, or a "
        "smaller width"
    )


@dataclass(frozen=True)
class RecoveryCost:
    """Memory needed to recover images on a device, and the tile size that fits.

    Attributes:
        shapes: (C, H, W) of the images, at least one.
        width: channels of the network.
        preset: preset of the recovery.
        precision: precision of the network.
        device: device of the recovery.
        option: name of the option of the memory limit, for errors.
        subject: name of the images in errors.
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
        """Whether the network uses fused kernels."""
        return self.device.type == "cpu" and self.preset.refined and kernels.library() is not None

    def memory(self, tile: Tile | None) -> int:
        """Return the number of bytes for tiles of the given size, or for whole images if ``tile`` is ``None``."""
        return run_memory(self.shapes, self.width, self.bf16, tile, fused=self.fused, threads=self.threads)

    @property
    def threads(self) -> int:
        """Number of threads among which tiles are distributed."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def choose_tile(self, limit: int | None) -> Tile | None:
        """Return the tiles of the preset for large images, or the side of smaller ones if they do not fit.

        Returns ``None`` to recover images whole: the preset has no tiles or no image is large, and all images fit.

        Args:
            limit: bytes, ``None`` for :data:`MEMORY_FRACTION` of the free memory.

        Raises:
            ValueError: even the smallest tiles do not fit.
        """
        free = limit or round(MEMORY_FRACTION * available_memory(self.device))
        wanted = self._wanted_tile()
        if wanted is not None and self.memory(wanted) <= free:
            return wanted
        tiles: tuple[int | None, ...] = (None, *TILES)
        if wanted is not None and not self.preset.has_network:
            tiles = tuple(tile for tile in FILTER_TILES if tile < min(sides_of(wanted)))
        arguments = (self.shapes, self.width, self.bf16, free)
        return choose_tile(*arguments, tiles=tiles, fused=self.fused, threads=self.threads, name=self.option)

    def _wanted_tile(self) -> Tile | None:
        """Return the tiles of the preset regardless of the memory; square ones if images would have different ones."""
        _, height, width = max(self.shapes, key=lambda shape: max(shape[1:]))
        wanted = self.preset.tile_for((height, width))
        if wanted is None or not self.preset.has_network:
            return wanted
        agree = all(self.preset.tile_for((h, w)) == wanted for _, h, w in self.shapes)
        return wanted if agree else self.preset.tile

    def check_tile(self, tile: Tile | None, limit: int | None) -> Tile | None:
        """Return the requested tiles if they fit.

        Args:
            tile: side of the tiles, or (height, width); ``None`` for whole images.
            limit: bytes, ``None`` for no limit.

        Raises:
            ValueError: the recovery does not fit within the limit.
        """
        need = self.memory(tile)
        if limit is not None and need > limit:
            how = f"in tiles of {tile_text(tile)}" if tile else "as a whole"
            raise ValueError(
                f"{self.option} must be at least {math.ceil(need / 2**20)}M for {self.subject} {how} at width "
                f"{self.width}, got {format_bytes(limit)}"
            )
        return tile


def block_length(pixels: int, width: int, device: str = "cpu") -> int:
    """Return the iterations per training step, from 1 to 10, so that a step takes about a second on two cores.

    On a GPU, where iterations are at least a hundred times faster, it is 25, the interval at which refinement evaluates
    its weights. Images that are recovered in turn capture a CUDA graph in each step, which does not pay off for shorter
    steps.

    >>> block_length(128 * 128, 64), block_length(512 * 512, 128), block_length(512 * 512, 128, "cuda")
    (10, 1, 25)
    """
    if device == "cuda":
        return 25
    return max(1, min(10, round(10 * (128 * 128 * 64**2) / (pixels * max(1, width) ** 2))))
