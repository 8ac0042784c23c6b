"""Axes of an array: channels, rows, columns, and the axes of a stack of images.

Shapes: C channels, H×W pixels; all other axes are stack axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dop_lightning.images.image_objects import Axis

FEW_CHANNELS = 4
"""With four or more axes, the last axis is the channel axis if it has at most this many entries."""


@dataclass(frozen=True)
class Layout:
    """Axes of an array.

    Attributes:
        shape: shape of the array.
        channels: axis of the channels, if any.
        rows: axis of the rows.
        columns: axis of the columns, greater than ``rows``.
    """

    shape: tuple[int, ...]
    channels: int | None
    rows: int
    columns: int

    @property
    def stack(self) -> tuple[int, ...]:
        """Axes of the stack, along which images are enumerated."""
        image = {self.channels, self.rows, self.columns}
        return tuple(axis for axis in range(len(self.shape)) if axis not in image)

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """Number of images along each axis of :attr:`stack`."""
        return tuple(self.shape[axis] for axis in self.stack)

    @property
    def size(self) -> tuple[int, int]:
        """Size (H, W) of an image."""
        return self.shape[self.rows], self.shape[self.columns]

    @property
    def channel_axis(self) -> int | None:
        """Axis of the channels within one image of the stack."""
        if self.channels is None:
            return None
        return sum(axis < self.channels for axis in (self.rows, self.columns))

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yield the position of each image in the stack."""
        yield from np.ndindex(self.stack_shape)

    def index(self, position: tuple[int, ...]) -> tuple[int | slice, ...]:
        """Return the index of an image in the array."""
        found: list[int | slice] = [slice(None)] * len(self.shape)
        for axis, place in zip(self.stack, position, strict=True):
            found[axis] = place
        return tuple(found)


def layout_of(shape: tuple[int, ...], channel_axis: Axis = "auto", *, first: bool = False) -> Layout:
    """Determine the axes of an array.

    Args:
        shape: shape of the array; at least two dimensions.
        channel_axis: axis of the channels, negative from the end; ``None`` without channels. ``auto`` uses the shorter
            of the first and the last of three axes, and the last of four or more axes if it has at most four entries.
        first: whether ``auto`` uses the axis before rows and columns, as in tensors ``(B, C, H, W)``.

    Returns:
        The axes. Rows and columns are the last two axes other than the channels.

    Raises:
        ValueError: the array has fewer than two axes or no such axis, or ``auto`` cannot determine the channels.

    >>> layout_of((8, 32, 32, 3)).stack_shape, layout_of((8, 32, 32), None).stack_shape
    ((8,), (8,))
    """
    rank = len(shape)
    if rank < 2:
        raise ValueError(f"image must have at least two dimensions, got shape {shape}")
    if channel_axis == "auto":
        channels = _find_channel_axis(shape, first)
    elif channel_axis is None:
        channels = None
    elif isinstance(channel_axis, bool) or not isinstance(channel_axis, int) or not -rank <= channel_axis < rank:
        raise ValueError(f"channel_axis must be 'auto', None or an axis of shape {shape}, got {channel_axis!r}")
    elif rank < 3:
        raise ValueError(f"channel_axis must be None for an image of shape {shape}, got {channel_axis}")
    else:
        channels = channel_axis % rank
    rows, columns = [axis for axis in range(rank) if axis != channels][-2:]
    return Layout(tuple(shape), channels, rows, columns)


def _find_channel_axis(shape: tuple[int, ...], first: bool) -> int | None:
    if len(shape) == 2:
        return None
    if first:
        return len(shape) - 3
    if len(shape) == 3:
        return 0 if shape[0] < shape[2] else 2
    if shape[-1] <= FEW_CHANNELS:
        return len(shape) - 1
    raise ValueError(
        f"channel_axis must be specified for shape {shape}: None without channels, or the axis of the channels, such "
        "as 1 for N×C×H×W"
    )
