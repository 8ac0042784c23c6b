"""Which problems of a large run are followed."""

import itertools

import pytest
import torch

from dop_lightning.foundation.spread import spread
from dop_lightning.images.tiles import cut
from dop_lightning.lightning.sample import sample
from dop_lightning.problems.problem import Problem


@pytest.mark.parametrize(("count", "most"), [(0, 5), (5, 0), (3, 5), (5, 5), (7, 5), (1000, 40), (41, 40), (79, 40)])
def test_sample_has_one_item_in_every_part(count: int, most: int) -> None:
    positions = spread(count, most)
    assert len(set(positions)) == len(positions) == min(count, most)
    for part, position in enumerate(positions):
        assert part * count // len(positions) <= position < -(-(part + 1) * count // len(positions))


@pytest.mark.parametrize("shape", [(10, 10, 10), (20, 5, 10), (5, 10, 20), (4, 25, 10), (8, 5, 25), (4, 5, 5, 10)])
def test_every_axis_of_a_grid_is_covered(shape: tuple[int, ...]) -> None:
    """Each value of each axis but one in twenty, by 40 of 1000; at equal distances most would be missing."""
    grid = list(itertools.product(*map(range, shape)))
    for axis, size in enumerate(shape):
        found = {grid[position][axis] for position in spread(len(grid), 40)}
        assert size - len(found) <= size / 20


def image(name: str, side: int) -> Problem:
    return Problem(name, observation=torch.zeros(1, side, side), data_range=1.0)


def test_tiles_do_not_displace_other_images() -> None:
    wholes = [image("small", 8), image("large", 80), image("also_small", 8)]
    mosaic = cut(wholes[1], 8, 0)
    assert mosaic is not None
    pairs = sample(wholes, {"large": mosaic}, 12)
    assert [problem.name for problem, _ in pairs if not problem.is_tile] == ["small", "also_small"]
    tiles = [problem for problem, whole in pairs if whole.name == "large"]
    assert len(tiles) == 4
    assert all(tile in mosaic.tiles.values() for tile in tiles)
    assert [whole.name for _, whole in sample(wholes, {"large": mosaic}, 2)] == ["small", "large"]
    assert sample(wholes, {"large": mosaic}, 0) == []
    assert sample([], {}, 10) == []
