"""Preview of an image during its recovery, reduced to the size of a screen.

Shapes: C channels, H×W pixels of the whole image, h×w of a tile.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from dop_lightning.images.pictures import Picture, image_picture, shades
from dop_lightning.images.tiles import Grid, Place
from dop_lightning.problems.problem import Problem

LIMIT = 2048
"""Maximum width and height of a preview in pixels; larger images are reduced by an integer factor by averaging."""


class Preview:
    """The observation of an image, with the tiles recovered so far.

    Tiles are blended as by :meth:`~dop_lightning.images.tiles.Grid.blend`, and then reduced by averaging. Both
    operations are linear, so a tile can be replaced without the others.

    Args:
        whole: an image ``(C, H, W)`` with a known range. Images with two channels show the first, images with four or
            more channels show the first three.
        grid: the tiles of the image; ``None`` if it is recovered whole.
        limit: maximum number of pixels per side, at least 1.

    Raises:
        ValueError: the problem is not an image with a known range.
    """

    def __init__(self, whole: Problem, grid: Grid | None = None, limit: int = LIMIT) -> None:
        if len(whole.signal_shape) != 3 or whole.data_range is None:
            raise ValueError(
                f"{whole.name}: a preview requires an image (C, H, W) with a known range, got a signal of shape "
                f"{whole.signal_shape}"
            )
        channels, height, width = whole.signal_shape
        self._whole = whole
        self._channels = 1 if channels < 3 else 3
        self._range = whole.data_range
        self._grid = grid or Grid((height, width), (height, width), (0,), (0,))
        self._weights = self._grid.weights()
        self._factor = math.ceil(max(height, width) / limit)
        self._counts = [self._pixels_per_cell(side) for side in (height, width)]
        self._shown: dict[Place, Tensor] = {}
        self._ended: set[Place] = set()
        everything = (slice(None), slice(None))
        # channel by channel, to save memory
        planes = (self._display_levels(self._observed(slice(k, k + 1), *everything)) for k in range(self._channels))
        self._picture = torch.cat([self._downscale(levels, (0, 0)) for levels in planes])

    def _pixels_per_cell(self, side: int) -> Tensor:
        """Return the number of rows or columns of the image that each row or column of the picture averages."""
        count = math.ceil(side / self._factor)
        return (side - self._factor * torch.arange(count)).clamp(max=self._factor).float()

    def _observed(self, channels: slice, rows: slice, columns: slice) -> Tensor:
        """Return a part of the observation; NaN if missing, or if the observation does not have the signal's shape."""
        y, mask = self._whole.observation, self._whole.mask
        if y.shape != self._whole.signal_shape:
            return torch.full(self._whole.signal_shape, math.nan)[channels, rows, columns]
        part = y[channels, rows, columns]
        return part if mask is None else part.masked_fill(~mask[channels, rows, columns], math.nan)

    def _display_levels(self, values: Tensor) -> Tensor:
        """Return the displayed channels in [0, 1]; NaN is grey."""
        return shades(values[: self._channels], self._range)

    def _downscale(self, levels: Tensor, corner: tuple[int, int]) -> Tensor:
        """Average ``(C, h, w)`` over squares of the whole image; pixels of a square outside of the tile count as 0."""
        factor = self._factor
        if factor == 1:
            return levels
        before = [begin % factor for begin in corner]
        ends = [(begin + side) for begin, side in zip(before, levels.shape[1:], strict=True)]
        after = [-end % factor for end in ends]
        padded = nn.functional.pad(levels, (before[1], after[1], before[0], after[0]))
        rows, columns = ((end + more) // factor for end, more in zip(ends, after, strict=True))
        sums = padded.view(len(levels), rows, factor, columns, factor).sum((2, 4))
        top, left = (begin // factor for begin in corner)
        counts = self._counts[0][top : top + rows, None] * self._counts[1][left : left + columns]
        return sums / counts

    def _contribution(self, place: Place, values: Tensor) -> Tensor:
        """Return the contribution of a tile to the picture."""
        rows, columns = self._weights
        weight = (rows[place[0]].unsqueeze(1) * columns[place[1]]).float()
        return self._downscale(
            self._display_levels(values) * weight, (self._grid.tops[place[0]], self._grid.lefts[place[1]])
        )

    @property
    def ended(self) -> int:
        """Number of tiles that are final."""
        return len(self._ended)

    def has(self, place: Place = (0, 0)) -> bool:
        """Return whether a result of the tile is shown."""
        return place in self._shown or place in self._ended

    def show(self, values: Tensor, place: Place = (0, 0), last: bool = False) -> None:
        """Show the current result of a tile.

        Args:
            values: ``(C, h, w)``, on any device.
            place: (row, column) of the tile.
            last: whether the result is final; later calls for this tile are ignored.
        """
        if place in self._ended:
            return
        before = self._shown.pop(place, None)
        if before is None:
            shown = self._observed(slice(self._channels), *self._grid.window(*place))
            before = self._contribution(place, shown)
        now = self._contribution(place, values)
        top, left = self._grid.tops[place[0]] // self._factor, self._grid.lefts[place[1]] // self._factor
        self._picture[:, top : top + now.shape[1], left : left + now.shape[2]] += now - before
        if last:
            self._ended.add(place)
        else:
            self._shown[place] = now

    def picture(self) -> Picture:
        """Return the picture, uint8 ``(H', W')`` or ``(H', W', 3)`` with H' and W' at most the limit."""
        return np.ascontiguousarray(image_picture(self._picture))
