"""The picture of an image while it is recovered."""

import numpy as np
import pytest
import torch

from dop_lightning.images.pictures import MISSING_GREY, image_picture
from dop_lightning.images.preview import Preview
from dop_lightning.images.tiles import cover
from dop_lightning.problems.problem import Problem


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def averaged(values: torch.Tensor, factor: int) -> torch.Tensor:
    """Squares of ``factor`` pixels a side, those at the lower and right end smaller."""
    rows, columns = values.shape[1:]
    return torch.stack(
        [
            torch.stack(
                [
                    values[:, row : row + factor, column : column + factor].mean((1, 2))
                    for column in range(0, columns, factor)
                ],
                dim=1,
            )
            for row in range(0, rows, factor)
        ],
        dim=1,
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("limit", "factor"), [(100, 1), (20, 3), (13, 4)])
def test_preview_starts_with_the_observation(channels: int, limit: int, factor: int) -> None:
    whole = Problem("photo", image(channels, 37, 50), data_range=1.0)
    picture = Preview(whole, limit=limit).picture()
    expected = image_picture(averaged(whole.observation, factor))
    assert picture.dtype == np.uint8
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() <= 1  # sums in another order


@pytest.mark.parametrize(("limit", "factor"), [(100, 1), (20, 3)])
def test_tiles_are_blended_as_in_the_result(limit: int, factor: int) -> None:
    whole = Problem("photo", image(3, 40, 50), data_range=1.0)
    grid = cover((40, 50), 16)
    preview = Preview(whole, grid, limit)
    for seed in (1, 2):  # each tile is replaced once
        tiles = {place: image(3, *grid.tile, seed=100 * seed + k) for k, place in enumerate(grid.places)}
        for place, tile in tiles.items():
            preview.show(tile, place)
    expected = image_picture(averaged(grid.blend(tiles), factor))
    assert np.abs(preview.picture().astype(int) - expected).max() <= 1


def test_tile_changes_only_its_own_pixels() -> None:
    whole = Problem("photo", image(1, 40, 50), data_range=1.0)
    grid = cover((40, 50), 16)
    preview = Preview(whole, grid)
    before = preview.picture()
    assert not preview.has((1, 1))
    preview.show(torch.zeros(1, 16, 16), (1, 1))
    assert preview.has((1, 1))
    changed = preview.picture() != before
    rows, columns = grid.window(1, 1)
    assert changed[rows, columns].any()
    changed[rows, columns] = False
    assert not changed.any()


def test_missing_entries_are_grey() -> None:
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[0, 2, 3] = False
    preview = Preview(Problem("photo", image(1, 8, 8), mask=mask, data_range=1.0))
    assert preview.picture()[2, 3] == MISSING_GREY
    preview.show(torch.zeros(1, 8, 8))
    assert preview.picture().max() == 0


@pytest.mark.parametrize(("channels", "shown"), [(2, 1), (5, 3)])
def test_channels_equal_those_of_pictures(channels: int, shown: int) -> None:
    whole = Problem("cube", image(channels, 6, 7), data_range=1.0)
    expected = image_picture(whole.observation[:shown])
    assert np.array_equal(Preview(whole).picture(), expected)


def test_only_images_have_a_preview() -> None:
    with pytest.raises(
        ValueError, match=r"rows: a preview requires an image \(C, H, W\) with a known range, got a signal"
    ):
        Preview(Problem("rows", image(6, 7)))


def test_finished_tiles_are_not_replaced() -> None:
    preview = Preview(Problem("photo", image(1, 8, 8), data_range=1.0))
    preview.show(torch.ones(1, 8, 8), last=True)
    assert preview.has()
    preview.show(torch.zeros(1, 8, 8))
    assert preview.picture().min() == 255
