"""Sides of the tiles of presets."""

import math

import pytest

from dop_lightning.engine.instant import MAX_TILE
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.tiles import Tile, cover


@pytest.mark.parametrize(
    ("preset", "size", "tile"),
    [
        ("default", (240, 240), None),
        ("default", (256, 256), 192),
        ("default", (256, 375), 192),
        ("default", (200, 1000), (200, 192)),
        ("default", (400, 240), (192, 240)),
        ("default", (512, 512), 192),
        ("quick", (4000, 4000), 192),
        ("quick", (4, 300), (8, 192)),
        ("best", (4000, 4000), None),
        ("instant", (640, 640), None),
        ("instant", (700, 700), 382),
        ("instant", (1024, 1024), 544),
        ("instant", (3000, 4000), 1048),
        ("instant", (1080, 1920), 1088),
        ("instant", (4000, 1088), 1088),
    ],
)
def test_size_of_tiles(preset: str, size: tuple[int, int], tile: Tile | None) -> None:
    assert PRESETS[preset].tile_for(size) == tile


def test_tiles_without_a_network_have_few_pixels_in_total() -> None:
    for height in range(1100, 4000, 331):
        for width in range(700, 5000, 277):
            tile = PRESETS["instant"].tile_for((height, width))
            assert isinstance(tile, int)
            assert tile <= MAX_TILE
            found, largest = (cover((height, width), side) for side in (tile, MAX_TILE))
            assert math.prod(found.tile) * len(found.places) <= math.prod(largest.tile) * len(largest.places)
