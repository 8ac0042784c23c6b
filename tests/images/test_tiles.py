"""Covers of an image by tiles, blending, and problems cut into tiles."""

from itertools import pairwise

import pytest
import torch

from dop_lightning.images import tiles as module
from dop_lightning.images.tiles import CONTEXT, Grid, cover, cut, default_overlap, regions_of, starts
from dop_lightning.problems.problem import Problem

SIZES = [(8, 8), (37, 51), (64, 64), (301, 450), (1, 100), (65, 64), (100, 9)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 4), (32, None), (33, 16), (64, 8), (1000, 10)])
class TestCover:
    def test_every_pixel_is_covered_by_tiles_of_one_size(self, size, tile: int, overlap: int | None) -> None:
        grid = cover(size, tile, overlap)
        hits = torch.zeros(size, dtype=torch.int)
        for place in grid.places:
            window = hits[grid.window(*place)]
            assert window.shape == grid.tile == (min(tile, size[0]), min(tile, size[1]))
            window += 1
        assert hits.min() >= 1

    def test_neighbours_share_at_least_the_overlap(self, size, tile: int, overlap: int | None) -> None:
        grid = cover(size, tile, overlap)
        least = default_overlap(tile) if overlap is None else overlap
        for begins in (grid.tops, grid.lefts):
            assert all(after - before <= tile - least for before, after in pairwise(begins))

    def test_tiles_of_an_image_blend_to_the_image(self, size, tile: int, overlap: int | None) -> None:
        image = torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        grid = cover(size, tile, overlap)
        whole = grid.blend({place: image[:, *grid.window(*place)] for place in grid.places})
        torch.testing.assert_close(whole, image)


def test_number_of_tiles_is_minimal() -> None:
    assert len(starts(100, 40, 10)) == 3
    assert len(starts(101, 40, 10)) == 4
    assert starts(40, 40, 10) == [0]
    assert starts(41, 40, 10) == [0, 1]


def test_blending_is_continuous() -> None:
    """Two tiles apart by 1: the steps between neighbouring pixels are those of the ramp, none of them near 1."""
    grid = cover((1, 60), 40, 20)
    tiles = {place: torch.full((1, 1, 40), float(k)) for k, place in enumerate(grid.places)}
    row = grid.blend(tiles)[0, 0]
    assert row[0] == 0
    assert row[-1] == 1
    assert row.diff().max() < 3 / 20
    assert row[21:39].diff().max() < 1.5 / 20
    assert row.diff().min() >= 0
    assert (row.diff() > 0).nonzero().flatten().tolist() == list(range(19, 40))  # where the two overlap


def test_missing_tile_is_filled_by_its_neighbours() -> None:
    image = torch.rand(1, 8, 20, generator=torch.Generator().manual_seed(0))
    grid = Grid((8, 20), (8, 8), (0,), (0, 6, 12))
    tiles = {(0, j): image[:, *grid.window(0, j)] for j in (0, 2)}
    whole = grid.blend(tiles)
    torch.testing.assert_close(whole[..., :8], image[..., :8])
    torch.testing.assert_close(whole[..., 12:], image[..., 12:])
    mean = torch.cat([image[..., :8], image[..., 12:]], dim=-1).mean()
    torch.testing.assert_close(whole[..., 8:12], mean.expand(1, 8, 4))


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (7, None, "tile must be a whole number of at least 8, got 7"),
        (16, -1, "overlap must be a whole number of at least 0, got -1"),
        (16, 9, "overlap must be at most half of tile, 8, got 9"),
    ],
)
def test_arguments_are_checked(tile: int, overlap: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cover((64, 64), tile, overlap)


class TestCut:
    @pytest.fixture
    def problem(self) -> Problem:
        draw = torch.Generator().manual_seed(0)
        truth, noise = (torch.rand(3, 20, 30, generator=draw) for _ in range(2))
        mask = torch.rand(3, 20, 30, generator=draw) > 0.2
        return Problem(
            "photo",
            truth + noise,
            truth=truth,
            true_corruption=noise * mask,
            mask=mask,
            seed=3,
            data_range=1.0,
            attributes={"image": "photo"},
            source="file",
        )

    def test_tiles_are_windows_of_every_tensor(self, problem: Problem) -> None:
        mosaic = cut(problem, 12, 4)
        assert mosaic is not None
        assert mosaic.whole is problem
        assert [tile.name for tile in mosaic.tiles.values()] == [f"photo-r{i}-c{j}" for i in range(2) for j in range(4)]
        for place, tile in mosaic.tiles.items():
            window = mosaic.grid.window(*place)
            for name in ("observation", "truth", "true_corruption", "mask"):
                assert torch.equal(getattr(tile, name), getattr(problem, name)[:, *window])
            assert tile.signal_shape == (3, 12, 12)
            assert (tile.data_range, tile.attributes) == (1.0, {"image": "photo"})
            assert tile.is_tile
        assert mosaic.tiles[1, 3].folder == "photo/tiles/r1-c3"
        assert not problem.is_tile

    def test_tiles_form_one_batch_with_separate_seeds(self, problem: Problem) -> None:
        mosaic = cut(problem, 12, 4)
        assert mosaic is not None
        assert len({tile.batch_key for tile in mosaic.tiles.values()}) == 1
        assert len({tile.seed for tile in mosaic.tiles.values()} | {3}) == 9
        again = cut(problem, 12, 4)
        assert again is not None
        assert [t.seed for t in again.tiles.values()] == [t.seed for t in mosaic.tiles.values()]

    def test_small_images_are_not_cut(self, problem: Problem) -> None:
        assert cut(problem, 30) is None

    def test_tile_without_observed_entries_is_omitted(self, problem: Problem) -> None:
        assert problem.mask is not None
        mask = problem.mask.clone()
        mask[:, :12, :12] = False
        mosaic = cut(Problem("photo", problem.observation, mask=mask), 12, 4)
        assert mosaic is not None
        assert (0, 0) not in mosaic.tiles
        assert len(mosaic.tiles) == 7


def test_tiles_may_be_rectangular() -> None:
    grid = cover((200, 500), (240, 192))
    assert (grid.tile, grid.tops, grid.lefts) == ((200, 192), (0,), (0, 154, 308))
    assert cover((200, 500), [240, 192]) == grid, "as read from YAML"
    assert cover((500, 500), 160) == cover((500, 500), (160, 160))
    with pytest.raises(ValueError, match="overlap must be at most half of tile, 8, got 9"):
        cover((200, 500), (64, 16), 9)


@pytest.mark.parametrize(
    ("tile", "said"),
    [
        (7, "tile must be a whole number of at least 8, got 7"),
        ((64, 7), "tile must be a whole number of at least 8, got 7"),
        ((64, 64, 3), r"tile must be a whole number or \(height, width\), got \(64, 64, 3\)"),
        ("64", "tile must be a whole number of at least 8, got '64'"),
    ],
)
def test_other_tiles_are_refused(tile: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cover((200, 500), tile)  # type: ignore[arg-type]


def test_default_overlap_is_limited() -> None:
    assert [default_overlap(tile) for tile in (8, 192, 512, 1024)] == [1, 24, 64, 64]


@pytest.mark.parametrize("size", [(700, 500), (3000, 4000), (1000, 60_000), (193, 193)])
def test_each_tile_is_in_one_region_with_context(size: tuple[int, int]) -> None:
    grid = cover(size, 192)
    windows, region = regions_of(grid)
    assert region.keys() == set(grid.places)
    for place, k in region.items():
        for own, around, length in zip(grid.window(*place), windows[k], size, strict=True):
            assert around.start == 0 or own.start - around.start >= CONTEXT
            assert around.stop == length or around.stop - own.stop >= CONTEXT
    for rows, columns in windows:
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= module.REGION
    assert list(windows) == sorted(windows, key=lambda window: (window[0].start, window[1].start))


def test_regions_of_wide_images_are_low() -> None:
    heights = [regions_of(cover((3000, width), 192))[0][0][0].stop for width in (4000, 20_000, 80_000)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < heights[0] / 3


def test_large_tiles_have_no_regions() -> None:
    assert regions_of(cover((3000, 3000), 1024)) == ((), {})
    mosaic = cut(Problem("photo", torch.zeros(1, 900, 900)), 600)
    assert mosaic is not None
    assert all(tile.part is not None and tile.part.region is None for tile in mosaic.tiles.values())
