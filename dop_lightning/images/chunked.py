"""Recover chunked arrays: dask arrays lazily, zarr arrays chunk by chunk.

Each chunk is recovered with a margin of pixels of its neighbours, which is cropped afterwards. Only the chunks that are
being recovered are in memory.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from dop_lightning.images.formats.value_range import value_range
from dop_lightning.images.image_objects import Axis, image_object
from dop_lightning.images.layout import Layout, layout_of
from dop_lightning.problems.randomness import stream_seed

OVERLAP = 24
"""Margin in pixels that is recovered around each chunk: as many as neighbouring tiles of 192×192 share."""

FIELDS = ("image", "corruption", "corruption_probability", "mask")

Recover = Callable[..., Any]

Limits = tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class ChunkedRecovery:
    """A recovered dask or zarr array; see :class:`~dop_lightning.images.recovery.Recovery`.

    Dask arrays are lazy: a chunk is recovered when it is computed. Compute several of them together, as in
    ``dask.compute(recovery.image, recovery.mask)``, to recover each chunk only once.

    Attributes:
        image: recovered values, with the shape, type and chunks of the input.
        corruption: estimated corruption, observation minus clean values; float32 or float64.
        corruption_probability: probability that a value is corrupted, float32; NaN with the preset ``paper``.
        mask: boolean, true where a value was detected as corrupted.
    """

    image: Any
    corruption: Any
    corruption_probability: Any
    mask: Any


class Block(NamedTuple):
    """A chunk.

    Attributes:
        number: position in the grid of chunks.
        core: slices of the chunk in the array.
        around: slices of the chunk and its margin in the array.
        inner: slices of the chunk within ``around``.
    """

    number: tuple[int, ...]
    core: tuple[slice, ...]
    around: tuple[slice, ...]
    inner: tuple[slice, ...]


def kind_of(given: object) -> str | None:
    """Return ``"dask"`` or ``"zarr"`` for their arrays and ``None`` otherwise, without importing either."""
    dask: Any = sys.modules.get("dask.array")
    if dask is not None and isinstance(given, dask.Array):
        return "dask"
    zarr: Any = sys.modules.get("zarr")
    if zarr is not None and isinstance(given, zarr.Array):
        return "zarr"
    return None


def recover_chunks(
    given: Any, channel_axis: Axis, seed: int, limits: Limits, recover: Recover, **arrays: Any
) -> ChunkedRecovery:
    """Recover a dask or zarr array.

    Args:
        given: the array.
        channel_axis: axis of the channels; see :func:`~dop_lightning.images.layout.layout_of`.
        seed: seed of the random numbers; the seed of each chunk is derived from it.
        limits: range of the values, if specified.
        recover: function that recovers one chunk; it receives its values, ``channel_axis``, ``seed``, ``value_range``
            and its part of ``arrays``.
        arrays: masks with the shape of the array, if any.

    Raises:
        ValueError: a mask does not have the shape of the array.
    """
    layout = layout_of(given.shape, channel_axis)
    for name, other in arrays.items():
        if other is not None and tuple(other.shape) != layout.shape:
            raise ValueError(f"{name} must have the shape of the image, {layout.shape}, got {tuple(other.shape)}")
    if kind_of(given) == "dask":
        return _recover_dask(given, layout, seed, limits, recover, arrays)
    return _recover_zarr(given, layout, seed, limits, recover, arrays)


def blocks(layout: Layout, chunks: tuple[tuple[int, ...], ...]) -> Iterator[Block]:
    """Yield the chunks of an array in order; ``chunks`` are their lengths along each axis."""
    bounds = [np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in chunks]
    for number in product(*(range(len(lengths)) for lengths in chunks)):
        core, around, inner = [], [], []
        for axis, place in enumerate(number):
            begin, end = bounds[axis][place], bounds[axis][place + 1]
            depth = OVERLAP if axis in (layout.rows, layout.columns) else 0
            first, last = max(0, begin - depth), min(layout.shape[axis], end + depth)
            core.append(slice(begin, end))
            around.append(slice(first, last))
            inner.append(slice(begin - first, end - first))
        yield Block(number, tuple(core), tuple(around), tuple(inner))


def _recover_chunk(
    values: Any, masks: dict[str, Any], block: Block, layout: Layout, seed: int, limits: Any, recover: Recover
) -> dict[str, np.ndarray]:
    """Recover a chunk."""
    axis = layout.channels
    masks = {name: None if mask is None else np.asarray(mask) for name, mask in masks.items()}
    own = stream_seed(seed, "init", 5, *block.number)
    found = recover(np.asarray(values), channel_axis=axis, seed=own, value_range=limits, **masks)
    arrays = {name: getattr(found, name) for name in FIELDS}
    if arrays["corruption_probability"] is None:
        arrays["corruption_probability"] = np.full(values.shape, np.nan, dtype=np.float32)
    if found.status == "interrupted":
        raise KeyboardInterrupt
    return {name: np.ascontiguousarray(array[block.inner]) for name, array in arrays.items()}


def _field_types(dtype: np.dtype) -> dict[str, np.dtype]:
    real = np.result_type(dtype, np.float32)
    return dict(zip(FIELDS, (dtype, real, np.dtype(np.float32), np.dtype(bool)), strict=True))


def _chunk_range(values: Any, layout: Layout) -> tuple[float, float] | None:
    """Estimate the range of the values of a chunk; ``None`` if nothing was observed."""
    array = np.asarray(values)
    own = layout_of(array.shape, layout.channels)
    known = []
    for position in own.indices():
        raster = image_object(array[own.index(position)], "image", own.channel_axis).raster
        observed = raster.observed()
        if observed is None or observed.any():
            known.append(value_range(raster))
    return _enclosing_range(known)


def _enclosing_range(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the smallest range that contains all ranges; ``None`` if there are none."""
    known = [each for each in ranges if each is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _unit_range(limits: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the range of the array if it is 0 to 1; other ranges are estimated separately for each chunk."""
    return limits if limits == (0.0, 1.0) else None


def _needs_range(dtype: np.dtype) -> bool:
    """Return whether the range of the whole array is needed: dark chunks do not reveal that floats are in [0, 1]."""
    return dtype.kind == "f"


def _recover_dask(
    given: Any, layout: Layout, seed: int, limits: Any, recover: Recover, masks: dict[str, Any]
) -> ChunkedRecovery:
    import dask
    import dask.array as da

    chunked = given if layout.channels is None else given.rechunk({layout.channels: -1})
    found = list(blocks(layout, chunked.chunks))
    if limits is None and _needs_range(given.dtype):
        ranges = [dask.delayed(_chunk_range)(chunked[block.core], layout) for block in found]
        limits = dask.delayed(_unit_range)(dask.delayed(_enclosing_range)(ranges))
    types = _field_types(given.dtype)
    parts: dict[str, np.ndarray] = {name: np.empty(chunked.numblocks, dtype=object) for name in FIELDS}
    for block in found:
        around = {name: None if mask is None else mask[block.around] for name, mask in masks.items()}
        done = dask.delayed(_recover_chunk)(chunked[block.around], around, block, layout, seed, limits, recover)
        shape = tuple(part.stop - part.start for part in block.core)
        for name in FIELDS:
            parts[name][block.number] = da.from_delayed(done[name], shape=shape, dtype=types[name])
    return ChunkedRecovery(**{name: da.block(parts[name].tolist()) for name in FIELDS})


def _recover_zarr(
    given: Any, layout: Layout, seed: int, limits: Any, recover: Recover, masks: dict[str, Any]
) -> ChunkedRecovery:
    import zarr

    chunks = list(given.chunks)
    if layout.channels is not None:
        chunks[layout.channels] = layout.shape[layout.channels]
    lengths = tuple(
        tuple(min(step, length - begin) for begin in range(0, length, step))
        for step, length in zip(chunks, layout.shape, strict=True)
    )
    if limits is None and _needs_range(given.dtype):
        limits = _unit_range(
            _enclosing_range([_chunk_range(given[block.core], layout) for block in blocks(layout, lengths)])
        )
    made = {
        name: zarr.create_array(store={}, shape=layout.shape, chunks=given.chunks, dtype=dtype)
        for name, dtype in _field_types(given.dtype).items()
    }
    made["image"].attrs.update(given.attrs.asdict())
    for block in blocks(layout, lengths):
        around = {name: None if mask is None else mask[block.around] for name, mask in masks.items()}
        for name, array in _recover_chunk(given[block.around], around, block, layout, seed, limits, recover).items():
            made[name][block.core] = array
    return ChunkedRecovery(**made)
