"""Split large images into overlapping tiles, each a separate problem, and blend them without visible seams.

Shapes: C channels, H×W pixels of the whole image, h×w of a tile.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least
from dop_lightning.problems.problem import Part, Problem, Window
from dop_lightning.problems.randomness import stream_seed

Size = tuple[int, int]

Place = tuple[int, int]
"""(row, column) of a tile."""

Tile = int | tuple[int, int]
"""Side of square tiles in pixels, or (height, width)."""

TILES = "tiles"
"""Name of the folder of the results of tiles, within the folder of their image."""


MAX_DEFAULT_OVERLAP = 64
"""Maximum default overlap in pixels."""

MIN_TILE = 8
"""Minimum side of a tile in pixels."""


def default_overlap(tile: int) -> int:
    """Return an eighth of the side of a tile, at most :data:`MAX_DEFAULT_OVERLAP`."""
    return min(tile // 8, MAX_DEFAULT_OVERLAP)


def sides_of(tile: Tile) -> Size:
    """Return the height and width of tiles.

    Raises:
        ValueError: a side is less than 8, or there are not two of them.
    """
    if not isinstance(tile, list | tuple):
        return (at_least("tile", tile, MIN_TILE),) * 2
    if len(tile) != 2:
        raise ValueError(f"tile must be a whole number or (height, width), got {tile}")
    return at_least("tile", tile[0], MIN_TILE), at_least("tile", tile[1], MIN_TILE)


def tile_text(tile: Tile) -> str:
    """Return the size of tiles for messages, the width first.

    >>> tile_text(192), tile_text((256, 192))
    ('192×192', '192×256')
    """
    height, width = sides_of(tile)
    return f"{width}×{height}"


def smallest_tile(length: int, tile: int) -> int:
    """Return the smallest side of as many tiles as cover a length with ``tile``, at the default overlap.

    The number of tiles is at least 2.

    >>> smallest_tile(4000, 1088), smallest_tile(700, 1088)
    (1048, 382)
    """
    overlap = default_overlap(tile)
    count = max(2, math.ceil((length - overlap) / (tile - overlap)))
    return math.ceil((length + (count - 1) * overlap) / count)


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles along one side: evenly spaced from 0, with the last tile ending at ``length``.

    The number of tiles is the smallest with which neighbours share at least ``overlap`` pixels.

    Args:
        length: pixels of the side, at least 1.
        tile: pixels of a tile, at least 1; if ``length`` is smaller, there is one tile of ``length`` pixels.
        overlap: from 0 to half of ``tile``.

    >>> starts(100, 40, 10), starts(30, 40, 10)
    ([0, 30, 60], [0])
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


@dataclass(frozen=True)
class Grid:
    """Overlapping tiles of equal size that cover an image.

    Args:
        size: (H, W) of the image.
        tile: (h, w) of a tile, at most (H, W).
        tops: first rows of the tiles, ascending.
        lefts: first columns of the tiles, ascending.
    """

    size: Size
    tile: Size
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def places(self) -> list[Place]:
        """(row, column) of each tile of the grid."""
        return [(i, j) for i in range(len(self.tops)) for j in range(len(self.lefts))]

    def window(self, i: int, j: int) -> tuple[slice, slice]:
        """Return the slices of the tile in row ``i``, column ``j``: ``image[..., *grid.window(i, j)]`` is h×w."""
        top, left = self.tops[i], self.lefts[j]
        return slice(top, top + self.tile[0]), slice(left, left + self.tile[1])

    def weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights of the rows ``(h,)`` and columns ``(w,)`` of tiles, float64; pixels have their product."""
        return _weights(self.size[0], self.tile[0], self.tops), _weights(self.size[1], self.tile[1], self.lefts)

    def blend(self, tiles: Mapping[Place, Tensor]) -> Tensor:
        r"""Blend tiles into an image: ``X = Σ_t w_t∘X_t`` with ``Σ_t w_t = 1`` at every pixel.

        Over the pixels that a tile shares with its neighbour, its weight falls to 0 as the square root of the distance
        from its edge. So X has no jump at the edges of tiles, and most shared pixels are averages of two recoveries.

        Args:
            tiles: ``(C, h, w)`` by (row, column), at least one. If tiles are missing, the weights of the others are
                normalized to sum to 1, and pixels without any tile are set to the mean of the image.

        Returns:
            ``(C, H, W)``, with the type of the tiles.
        """
        rows, columns = self.weights()
        first = next(iter(tiles.values()))
        whole = first.new_zeros(first.shape[0], *self.size)  # C H W
        total = first.new_zeros(self.size)
        for (i, j), tile in tiles.items():
            weight = (rows[i].unsqueeze(1) * columns[j]).to(whole)  # h w
            whole[:, *self.window(i, j)] += tile * weight
            total[self.window(i, j)] += weight
        if len(tiles) < len(self.places):
            covered = total > 0
            whole[:, covered] /= total[covered]
            whole[:, ~covered] = whole[:, covered].mean(dim=1, keepdim=True)
        return whole


def cover(size: Size, tile: Tile, overlap: int | None = None) -> Grid:
    """Cover an image with tiles.

    Args:
        size: (H, W).
        tile: side of square tiles in pixels, or (height, width), each at least 8; limited to the sides of the image.
        overlap: minimum number of pixels shared by neighbours, from 0 to half of the shorter side of a tile; by default
            :func:`default_overlap` of the height, and of the width.

    Raises:
        ValueError: an argument is out of range.
    """
    sides = sides_of(tile)
    if overlap is not None and at_least("overlap", overlap, 0) > min(sides) // 2:
        raise ValueError(f"overlap must be at most half of tile, {min(sides) // 2}, got {overlap}")
    tops, lefts = (
        tuple(starts(length, side, default_overlap(side) if overlap is None else overlap))
        for length, side in zip(size, sides, strict=True)
    )
    return Grid(size, (min(sides[0], size[0]), min(sides[1], size[1])), tops, lefts)


def _weights(length: int, tile: int, begins: Sequence[int]) -> list[Tensor]:
    """Return the weights of the tiles along one side, each ``(tile,)``, float64; they sum to 1 at every pixel."""
    raw = [torch.ones(tile, dtype=torch.float64) for _ in begins]
    for k, (begin, after) in enumerate(pairwise(begins)):
        shared = begin + tile - after
        position = (torch.arange(shared, dtype=torch.float64) + 0.5) / max(1, shared)
        # steep at the edges, so that most of the overlap averages two tiles, which has a smaller error than one
        rise = position.sqrt()
        raw[k][tile - shared :] *= rise.flip(0)
        raw[k + 1][:shared] *= rise
    total = torch.zeros(length, dtype=torch.float64)
    for begin, weight in zip(begins, raw, strict=True):
        total[begin : begin + tile] += weight
    return [weight / total[begin : begin + tile] for begin, weight in zip(begins, raw, strict=True)]


def cheapest_tile(size: Size, most: int) -> int:
    """Return the side of at least two tiles, with the default overlap, that have the fewest pixels in total.

    Args:
        size: (H, W).
        most: maximum side of a tile, above :data:`MAX_DEFAULT_OVERLAP`.

    >>> cheapest_tile((3000, 4000), 1088), cheapest_tile((1080, 1920), 1088)
    (1048, 1088)
    """

    def pixels(tile: int) -> int:
        grid = cover(size, tile)
        return len(grid.places) * math.prod(grid.tile)

    sides = {min(most, max(size) - 1), *(smallest_tile(length, most) for length in size)}
    return min(sorted(sides, reverse=True), key=pixels)


REGION = 760
"""Maximum side of a region of tiles in pixels. Larger regions would take little less time per pixel, but their steps
would delay interruptions."""

REGION_PIXELS = 8_000_000
"""Approximate maximum number of pixels of a row of regions. Regions of wider images have fewer rows of tiles, since
tiles are recovered row by row, and the results of a row of regions are kept in memory."""

CONTEXT = 24
"""Pixels by which a region exceeds its tiles."""


def regions_of(grid: Grid) -> tuple[tuple[Window, ...], dict[Place, int]]:
    """Divide the tiles of a grid into regions: rectangles of adjacent tiles, with some context around them.

    Returns:
        The windows of the regions, row by row, and the position of the region of each tile. There are no regions if
        two tiles do not fit into one.

    >>> windows, region = regions_of(cover((500, 900), 192))
    >>> [(columns.start, columns.stop) for _, columns in windows]
    [(0, 499), (401, 900)]
    >>> region[0, 0], region[1, 2], region[1, 3]
    (0, 0, 1)
    """
    widest = REGION - 2 * CONTEXT
    tallest = min(widest, max(grid.tile[0], REGION_PIXELS // grid.size[1]))
    rows = _groups(grid.tops, grid.tile[0], tallest)
    columns = _groups(grid.lefts, grid.tile[1], widest)
    if len(rows) == len(grid.tops) and len(columns) == len(grid.lefts):
        return (), {}
    windows: list[Window] = []
    region: dict[Place, int] = {}
    for top in rows:
        for left in columns:
            region.update({(i, j): len(windows) for i in top for j in left})
            windows.append(
                (
                    _with_context(grid.tops, grid.tile[0], top, grid.size[0]),
                    _with_context(grid.lefts, grid.tile[1], left, grid.size[1]),
                )
            )
    return tuple(windows), region


def _groups(begins: Sequence[int], tile: int, most: int) -> list[range]:
    """Divide the tiles along one side into as few groups of similar size as possible, each of at most ``most`` pixels.

    A group has at least one tile.
    """
    step = max((after - begin for begin, after in pairwise(begins)), default=tile)
    count = math.ceil(len(begins) / (1 + max(0, most - tile) // step))
    bounds = [round(k * len(begins) / count) for k in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(bounds)]


def _with_context(begins: Sequence[int], tile: int, group: range, length: int) -> slice:
    return slice(max(0, begins[group[0]] - CONTEXT), min(length, begins[group[-1]] + tile + CONTEXT))


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A problem that is recovered in tiles.

    Args:
        whole: the problem of the whole image.
        grid: grid of its tiles.
        tiles: problem of each tile by (row, column), except for tiles without observed values.
    """

    whole: Problem
    grid: Grid
    tiles: dict[Place, Problem]


def cut(problem: Problem, tile: Tile, overlap: int | None = None) -> Mosaic | None:
    """Cut a problem into tiles; ``None`` if one tile covers it.

    The name of a tile is that of the whole image with its row and column. A tile has the corresponding window of each
    tensor, and its own seed, because equal networks would make similar errors at neighbouring places.

    Args:
        problem: image ``(C, H, W)`` whose observation has the shape of the signal.
        tile: see :func:`cover`.
        overlap: see :func:`cover`.

    Raises:
        ValueError: an argument is out of range.
    """
    grid = cover((problem.shape[-2], problem.shape[-1]), tile, overlap)
    if len(grid.places) == 1:
        return None
    digits = len(str(max(len(grid.tops), len(grid.lefts)) - 1))
    tiles = {}
    mask = problem.mask
    regions, region = regions_of(grid)
    for i, j in grid.places:
        rows, columns = grid.window(i, j)
        if mask is not None and not mask[..., rows, columns].any():
            continue
        place = f"r{i:0{digits}}-c{j:0{digits}}"
        tiles[i, j] = problem.window(
            rows,
            columns,
            part=Part(problem, rows, columns, regions, region.get((i, j))),
            name=f"{problem.name}-{place}",
            folder=f"{problem.folder}/{TILES}/{place}",
            seed=stream_seed(problem.seed, "init", 4, i, j),
        )
    return Mosaic(problem, grid, tiles)
