"""Sides of the tiles of presets."""

import pytest

from dop_lightning.images.presets import MAX_FILTER_TILE, PRESETS
from dop_lightning.images.tiles import cover


@pytest.mark.parametrize(
    ("preset", "side", "tile"),
    [
        ("default", 240, None),
        ("default", 256, 192),
        ("default", 512, 192),
        ("quick", 4000, 192),
        ("best", 4000, None),
        ("instant", 640, None),
        ("instant", 700, 382),
        ("instant", 1024, 544),
        ("instant", 4000, 1048),
    ],
)
def test_side_of_tiles(preset: str, side: int, tile: int | None) -> None:
    assert PRESETS[preset].tile_for(side) == tile


def test_smaller_tiles_without_a_network_are_not_more() -> None:
    for side in range(1300, 5000, 37):
        tile = PRESETS["instant"].tile_for(side)
        assert tile is not None
        assert tile <= MAX_FILTER_TILE
        assert len(cover((side, side), tile).places) <= len(cover((side, side), MAX_FILTER_TILE).places)
