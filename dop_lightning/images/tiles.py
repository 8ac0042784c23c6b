"""Large images in overlapping tiles, each a problem of its own, blended into one image without seams.

Shapes: C channels, H×W pixels of the whole, h×w of a tile.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least
from dop_lightning.problems.problem import Part, Problem
from dop_lightning.problems.randomness import stream_seed

Size = tuple[int, int]

Place = tuple[int, int]
"""(row, column) of a tile."""

TILES = "tiles"
"""Where the results of tiles lie in the folder of their image."""


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along one side: evenly spaced, the first at 0, the last ending at ``length``.

    There are as few of them as neighbours that share at least ``overlap`` pixels allow.

    Args:
        length: pixels of the side, at least 1.
        tile: pixels of a tile, at least 1; one tile of ``length`` where that is shorter.
        overlap: at least 0, at most half of ``tile``.

    >>> starts(100, 40, 10), starts(30, 40, 10)
    ([0, 30, 60], [0])
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


@dataclass(frozen=True)
class Grid:
    """A cover of an image by overlapping tiles of one size.

    Args:
        size: (H, W) of the image.
        tile: (h, w) of a tile, at most the image.
        tops: first rows of the tiles, ascending.
        lefts: first columns of the tiles, ascending.
    """

    size: Size
    tile: Size
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def places(self) -> list[Place]:
        """(row, column) of every tile in the grid."""
        return [(i, j) for i in range(len(self.tops)) for j in range(len(self.lefts))]

    def window(self, i: int, j: int) -> tuple[slice, slice]:
        """The pixels of the tile in row ``i`` and column ``j``: ``image[..., *grid.window(i, j)]`` is h×w."""
        top, left = self.tops[i], self.lefts[j]
        return slice(top, top + self.tile[0]), slice(left, left + self.tile[1])

    def weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights of the rows ``(h,)`` and of the columns ``(w,)`` of tiles, float64; that of a pixel is a product."""
        return _weights(self.size[0], self.tile[0], self.tops), _weights(self.size[1], self.tile[1], self.lefts)

    def blend(self, tiles: Mapping[Place, Tensor]) -> Tensor:
        r"""The image of which ``tiles`` are parts: ``X = Σ_t w_t∘X_t`` with ``Σ_t w_t = 1`` at every pixel.

        Where a tile ends inside the image its weight falls to 0, in proportion to the square root of the distance from
        its end, over the pixels that it shares with its neighbour. So X has no jump there, and most shared pixels are
        averages of two recoveries.

        Args:
            tiles: ``(C, h, w)`` by their (row, column), at least one. Where some are left out, the weights of the
                others are made to sum to 1, and pixels of none get the mean of the image.

        Returns:
            ``(C, H, W)``, of the type of the tiles.
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


def cover(size: Size, tile: int, overlap: int | None = None) -> Grid:
    """Cover an image with square tiles.

    Args:
        size: (H, W).
        tile: side of a tile in pixels, at least 8; a side of the image that is shorter is taken whole.
        overlap: pixels that neighbours share at least, from 0 to half of ``tile``; by default an eighth of it.

    Raises:
        ValueError: an argument is out of range.
    """
    at_least("tile", tile, 8)
    overlap = tile // 8 if overlap is None else at_least("overlap", overlap, 0)
    if overlap > tile // 2:
        raise ValueError(f"overlap must be at most half of tile, {tile // 2}, got {overlap}")
    tops, lefts = (tuple(starts(length, tile, overlap)) for length in size)
    return Grid(size, (min(tile, size[0]), min(tile, size[1])), tops, lefts)


def _weights(length: int, tile: int, begins: Sequence[int]) -> list[Tensor]:
    """Weights of the tiles along one side, each ``(tile,)``, whose sum is 1 at every pixel; float64."""
    raw = [torch.ones(tile, dtype=torch.float64) for _ in begins]
    for k, (begin, after) in enumerate(pairwise(begins)):
        shared = begin + tile - after
        position = (torch.arange(shared, dtype=torch.float64) + 0.5) / max(1, shared)
        # so steep that most of the overlap is an average of two tiles, which errs less than one
        rise = position.sqrt()
        raw[k][tile - shared :] *= rise.flip(0)
        raw[k + 1][:shared] *= rise
    total = torch.zeros(length, dtype=torch.float64)
    for begin, weight in zip(begins, raw, strict=True):
        total[begin : begin + tile] += weight
    return [weight / total[begin : begin + tile] for begin, weight in zip(begins, raw, strict=True)]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A problem that is recovered in tiles.

    Args:
        whole: the problem.
        grid: its tiles.
        tiles: the problem of every tile, by its (row, column); a tile of which nothing was observed has none.
    """

    whole: Problem
    grid: Grid
    tiles: dict[Place, Problem]


def cut(problem: Problem, tile: int, overlap: int | None = None) -> Mosaic | None:
    """Cut a problem into tiles; ``None`` where it is not larger than one.

    A tile has the name of the whole, its row and its column, a seed of its own (equal networks would err alike at
    neighbouring places), and the window of every tensor of the whole.

    Args:
        problem: of an image, ``(C, H, W)``, whose observation has the shape of the signal.
        tile: see :func:`cover`.
        overlap: see :func:`cover`.

    Raises:
        ValueError: an argument is out of range.
    """
    grid = cover((problem.observation.shape[-2], problem.observation.shape[-1]), tile, overlap)
    if len(grid.places) == 1:
        return None
    digits = len(str(max(len(grid.tops), len(grid.lefts)) - 1))
    tiles = {}
    for i, j in grid.places:
        rows, columns = grid.window(i, j)
        if problem.mask is not None and not problem.mask[..., rows, columns].any():
            continue
        place = f"r{i:0{digits}}-c{j:0{digits}}"
        tiles[i, j] = replace(
            problem,
            observation=problem.observation[..., rows, columns].contiguous(),
            truth=_window(problem.truth, rows, columns),
            true_corruption=_window(problem.true_corruption, rows, columns),
            mask=_window(problem.mask, rows, columns),
            undamaged=_window(problem.undamaged, rows, columns),
            name=f"{problem.name}-{place}",
            folder=f"{problem.folder}/{TILES}/{place}",
            signal_shape=(),
            seed=stream_seed(problem.seed, "init", 4, i, j),
            source=None,
            part=Part(problem, rows, columns),
        )
    return Mosaic(problem, grid, tiles)


def _window(tensor: Tensor | None, rows: slice, columns: slice) -> Tensor | None:
    return None if tensor is None else tensor[..., rows, columns].contiguous()
