"""Containers of arrays: NumPy's masked arrays and xarray's labelled arrays.

Results are returned in the same container.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dop_lightning.images.image_objects import Axis
from dop_lightning.images.layout import layout_of
from dop_lightning.images.recovery import Recovery
from dop_lightning.images.stack_recovery import StackRecovery

CHANNEL_NAMES = frozenset({"band", "bands", "c", "channel", "channels", "rgb"})
"""Names of xarray dimensions that are channels, in lower case."""

ROW_NAMES = frozenset({"y", "lat", "latitude", "northing", "row"})
"""Names of xarray dimensions that are rows, in lower case."""

COLUMN_NAMES = frozenset({"x", "lon", "longitude", "easting", "col", "column"})
"""Names of xarray dimensions that are columns, in lower case."""

Result = TypeVar("Result", Recovery, StackRecovery)


class Opened(NamedTuple):
    """Content of a container.

    Attributes:
        values: the array.
        channel_axis: axis of its channels.
        missing: mask that is true where a value is missing, if any.
        close: function that wraps a result in the container.
    """

    values: Any
    channel_axis: Axis
    missing: Any
    close: Callable[[Any], Any]


def is_xarray(given: object) -> bool:
    """Return whether an object is a DataArray, without importing xarray."""
    xarray: Any = sys.modules.get("xarray")
    return xarray is not None and isinstance(given, xarray.DataArray)


def opened(given: Any, channel_axis: Axis | str) -> Opened:
    """Extract the array from its container; other objects are returned unchanged.

    Args:
        given: the image.
        channel_axis: axis of the channels; for a DataArray, also the name of the dimension.

    Raises:
        ValueError: the array has no such dimension.
    """
    if is_xarray(given):
        return _open_xarray(given, channel_axis)
    if isinstance(channel_axis, str) and channel_axis != "auto":
        raise ValueError(
            f"channel_axis must be 'auto', None or an axis, got {channel_axis!r}; names are for xarray.DataArray"
        )
    axis: Axis = channel_axis  # type: ignore[assignment]
    if isinstance(given, np.ma.MaskedArray):
        return Opened(
            given.data, axis, np.ma.getmaskarray(given), lambda result: _apply_wrappers(result, _mask_wrappers(given))
        )
    return Opened(given, axis, None, lambda result: result)


def bare(given: Any) -> Any:
    """Return a mask or truth without its container."""
    if is_xarray(given):
        return given.values
    if isinstance(given, np.ma.MaskedArray):
        return given.data
    return given


def _mask_wrappers(given: np.ma.MaskedArray) -> dict[str, Callable[[Any], Any]]:
    """Return wrappers that make the image a masked array without masked entries."""
    return {"image": lambda values: np.ma.array(values, mask=False, fill_value=given.fill_value)}


def _apply_wrappers(result: Result, wrappers: dict[str, Callable[[Any], Any]]) -> Result:
    """Replace fields of a result by their wrapped values."""
    fields = {name: getattr(result, name) for name in wrappers}
    return replace(result, **{name: wrappers[name](value) for name, value in fields.items() if value is not None})


def _open_xarray(given: Any, channel_axis: Axis | str) -> Opened:
    dims = [str(dim) for dim in given.dims]
    if given.ndim < 2:
        raise ValueError(f"image must have at least two dimensions, got {', '.join(dims) or 'none'}")
    if isinstance(channel_axis, str) and channel_axis != "auto":
        if channel_axis not in dims:
            raise ValueError(f"channel_axis must be one of the dimensions {', '.join(dims)}, got {channel_axis!r}")
        channel_axis = dims.index(channel_axis)
    channels: int | None = None
    if channel_axis == "auto":
        named = [k for k, dim in enumerate(dims) if dim.lower() in CHANNEL_NAMES]
        channels = named[0] if len(named) == 1 and given.ndim > 2 else None
    elif channel_axis is not None:
        channels = layout_of(given.shape, channel_axis).channels  # type: ignore[arg-type]
    order = _axis_order(dims, channels)
    turned = given.transpose(*(given.dims[k] for k in order))

    def close(result: Any) -> Any:
        def labelled(values: Any) -> Any:
            return turned.copy(data=values).transpose(*given.dims)

        def without_units(values: Any) -> Any:
            made = labelled(values)
            made.attrs = {}
            return made

        wrappers = {"image": labelled, "corruption": labelled, "mask": without_units}
        return _apply_wrappers(result, {**wrappers, "corruption_probability": without_units})

    axis = None if channels is None else order.index(channels)
    values = turned.data if hasattr(turned.data, "dask") else turned.values
    return Opened(values, axis, None, close)


def _axis_order(dims: list[str], channels: int | None) -> list[int]:
    """Return the axes in the order stack, rows, columns, channels."""
    others = [k for k in range(len(dims)) if k != channels]
    rows = [k for k in others if dims[k].lower() in ROW_NAMES]
    columns = [k for k in others if dims[k].lower() in COLUMN_NAMES]
    pixels = [*rows, *columns] if len(rows) == len(columns) == 1 else others[-2:]
    rest = [k for k in others if k not in pixels]
    return [*rest, *pixels, *([] if channels is None else [channels])]
