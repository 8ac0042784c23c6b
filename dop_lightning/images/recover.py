"""Restore images in Python, as ``dop recover`` does for files, without a Trainer, folders and logs."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.steps import Dense
from dop_lightning.engine.steps.clean_entries import Sign
from dop_lightning.images import chunked
from dop_lightning.images.containers import bare, opened
from dop_lightning.images.image_objects import Axis, image_object
from dop_lightning.images.interrupt import first_interrupt
from dop_lightning.images.layout import Layout, layout_of
from dop_lightning.images.listener import report_to_listener
from dop_lightning.images.live_widget import live_widget
from dop_lightning.images.presets import PRESETS, Per, Precision
from dop_lightning.images.progress import Report, progress_bar
from dop_lightning.images.recovery import Recovery
from dop_lightning.images.restoration import Request, request, restore, warn
from dop_lightning.images.settings import Settings
from dop_lightning.images.stacks import AT_ONCE, recover_stack
from dop_lightning.images.tiles import Tile, cover


def recover_image(
    image: Any,
    *,
    mask: Any = None,
    missing: Any = None,
    undamaged: Any = None,
    truth: Any = None,
    channel_axis: Axis | str = "auto",
    value_range: tuple[float, float] | None = None,
    per: Per = "auto",
    damage: str = "auto",
    outliers: Sign = "auto",
    dense: Dense = "auto",
    preset: Literal["instant", "quick", "default", "best", "paper"] = "default",
    iterations: int | None = None,
    alpha: float | None = None,
    width: int | None = None,
    seed: int = 0,
    tile: Tile | None = None,
    max_memory: str | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    progress: bool | None = None,
) -> Any:
    """Restore an image with dead or random pixels. You specify neither their number nor their places.

    The result is that of ``dop recover`` for a file with the same values and the same options, bit for bit on the same
    machine with the same number of threads. No files are written, and the threads and random generators of the process
    are not modified. In a container, torch uses the core count of the whole machine; calling ``torch.set_num_threads``
    with the number of available cores can be many times faster.

    8-bit integers have the range 0 to 255. For other integers and for floats, the range is estimated, see
    :mod:`~dop_lightning.images.formats.value_range`. NaN and transparent pixels are missing values and are filled in;
    the alpha channel is not changed.

    Several images are supported:

    - A list or tuple of images returns a list with one :class:`Recovery` per image. Each image has its own range.
    - An array or tensor with more dimensions, such as N×H×W×C, or a volume with ``channel_axis=None``, returns a
      :class:`~dop_lightning.images.stack_recovery.StackRecovery`. Its images are recovered independently. The last two
      axes other than the channels are rows and columns.
    - A dask or zarr array returns a :class:`~dop_lightning.images.chunked.ChunkedRecovery`, which is lazy for dask.

    Containers are preserved: a masked array returns a masked array without masked entries, and an xarray ``DataArray``
    keeps its coordinates and attributes. Dimensions of a ``DataArray`` named ``x``, ``y``, ``lat``, ``lon``, … are rows
    and columns in any position, and one named ``band`` or ``channel`` is the channel axis.

    Ctrl-C, or the stop button of a notebook, stops after the block in progress, within about a second, and returns the
    current result with the status ``interrupted`` and a warning. Tiles that have not started keep their observed
    values. A second Ctrl-C raises ``KeyboardInterrupt`` at once, and so does the first one if no image has started.

    Args:
        image: a NumPy array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` of booleans, integers or floats of up to 64 bits
            (channels are the shorter of the first and the last axis, the last if they are equal; no channel is alpha);
            a PIL image of mode 1, L, LA, P, RGB, RGBA, I, I;16 or F; a torch tensor ``(H, W)`` or ``(C, H, W)`` on any
            device; the path of a file that ``dop recover`` supports; or the name of a sample. ``"frame.fits[1]"`` and
            ``"frame.fits[SCI]"`` select one HDU. Or several images, see above.
        mask: observed values: true, or above half of the maximum of the mask. Accepts the same types as ``image``, with
            its size, and with one channel or the channels of the image. For a stack, the mask has the shape of the
            stack, with or without channels, or of one image; for a list, pass a list, or one mask for all images.
        missing: missing values to fill in, the opposite of ``mask``, as in
            ``skimage.restoration.inpaint_biharmonic``; of the same types and sizes as ``mask``. With both arguments, a
            value is observed if both mark it as observed.
        undamaged: values known to be undamaged: true, or above half of the maximum. Accepts the same types and sizes as
            ``mask``. They are never marked as corrupted and keep their values. Not supported by the preset ``paper``.
        truth: the clean image, used only for scores; of the same types, in the units and with the channels of the
            image.
        channel_axis: axis of the channels, ``None`` without channels; for a ``DataArray``, also the name of the
            dimension. By default, it is the shorter of the first and the last of three axes; the last of four or more
            axes if it has at most four entries; and for tensors with four or more axes, the axis before the rows.
        value_range: minimum and maximum clean value, in the units of the image.
        per: whether corruption is detected per entry (each channel of a pixel) or per pixel; ``auto`` estimates it if
            the outliers have random values.
        damage: damage to detect in addition to isolated entries: ``points``, none; ``lines`` and ``auto``, dead rows
            and columns; ``scratches``, ``rectangles``, ``dust`` or ``text``, these and lines; join several as in
            ``scratches+dust``. Detected damage is treated as missing, and filled in.
        outliers: sign of the outliers: ``positive`` (cosmic rays, hot pixels), ``negative`` or ``both``; ``auto``
            estimates it in frames limited by noise, and is ``both`` otherwise. Not supported by the preset ``paper``.
        dense: ``keep`` dense noise in undamaged values, or ``remove`` it; ``auto`` removes strong noise from 8-bit
            images.
        preset: ``instant`` (no network), ``quick``, ``default``, ``best`` (for a GPU) or ``paper`` (takes days), see
            ``dop recover --help``.
        iterations: number of gradient iterations, at least 1; by default that of the preset.
        alpha: ratio of the learning rates, positive; by default that of the preset, or chosen by the size of the image.
        width: channels of the network, at least 1; by default that of the preset.
        seed: random seed.
        tile: side in pixels of overlapping tiles in which the image is recovered, or (height, width), at least 8; by
            default, tiles are used for images that are large for the preset or for the memory.
        max_memory: memory limit such as ``8G``; larger images are recovered in tiles. By default four fifths of the
            free memory.
        device: ``auto`` (the GPU of the tensor, otherwise a GPU if available), ``cpu``, ``gpu``, or a torch device such
            as ``cuda:1``.
        precision: precision of the network and of the products in its optimizer that are not compiled: ``fp32``,
            ``bf16``, or ``auto``, which is bf16 if the processor supports it in hardware.
        progress: whether to show a progress bar; by default in notebooks and on terminals. Notebooks with ipywidgets
            (the extra ``notebook``) also show the current result.

    Returns:
        A :class:`Recovery` with the recovered image, of the same type, and the detected corruption. For several images,
        see above.

    Raises:
        ValueError: an argument is out of range or of an unsupported type, or a file does not exist; a mask or truth has
            the wrong size; the image has no pixels, contains infinite values, or is too large for the memory.
        OutOfMemoryError: less memory was available than expected.

    >>> import numpy as np
    >>> from dop_lightning import recover_image
    >>> damaged = np.full((16, 16), 200, dtype=np.uint8)
    >>> damaged[::5, ::5] = 0
    >>> recovery = recover_image(damaged, preset="quick", width=4, iterations=2, device="cpu", progress=False)
    >>> recovery.image.shape, recovery.image.dtype, recovery.status, recovery.history["iteration"]
    ((16, 16), dtype('uint8'), 'done', [2])
    """
    options: dict[str, Any] = {
        "value_range": value_range,
        "per": per,
        "damage": damage,
        "outliers": outliers,
        "dense": dense,
        "preset": preset,
        "iterations": iterations,
        "alpha": alpha,
        "width": width,
        "tile": tile,
        "max_memory": max_memory,
        "device": device,
        "precision": precision,
    }
    if undamaged is not None and preset in PRESETS and not PRESETS[preset].refined:
        raise ValueError(f"undamaged must be None with the preset {preset}, which does not use it; got one")
    masks = {"mask": mask, "missing": missing, "undamaged": undamaged}
    if isinstance(image, list | tuple):
        settings = Settings.checked(image[0] if image else None, seed=seed, **options)
        return _recover_list(image, channel_axis, settings, progress, **masks, truth=truth)
    values, axis, masked, close = opened(image, channel_axis)
    masks = {name: bare(each) for name, each in masks.items()}
    masks["missing"], truth = _union(masks["missing"], masked), bare(truth)
    settings = Settings.checked(values, seed=seed, **options)
    if chunked.kind_of(values) is not None:
        if truth is not None:
            raise ValueError("truth must be None for arrays in chunks, got one")
        recover = partial(recover_image, **{**options, "progress": False})
        limits = settings.value_range
        return close(chunked.recover_chunks(values, axis, seed, limits, recover, **masks))
    layout = _array_layout(values, axis)
    if layout is not None and layout.stack:
        with _run(progress, settings, [layout.size] * math.prod(layout.stack_shape)) as (stop, report):
            result: Any = recover_stack(values, layout, settings, stop, report, **masks, truth=truth, stacklevel=2)
        if result is None:
            raise KeyboardInterrupt
        return close(result)
    given = image_object(values, axis="auto" if layout is None else layout.channel_axis)
    prepared = request(given, settings, **masks, truth=truth)
    with _run(progress, settings, [prepared.loaded.format.size]) as (stop, report):
        (recovery,) = restore([prepared], settings, stop, report)
    if recovery is None:
        raise KeyboardInterrupt
    warn(recovery, settings, stacklevel=2)
    return close(recovery)


def _recover_list(
    images: Sequence[Any], channel_axis: Axis | str, settings: Settings, progress: bool | None, **others: Any
) -> list[Recovery]:
    """Recover a list of images, which may differ in size and type."""
    requests: list[Request] = []
    closes = []
    for number, image in enumerate(images):
        values, axis, masked, close = opened(image, channel_axis)
        layout = _array_layout(values, axis)
        if chunked.kind_of(values) is not None or (layout is not None and layout.stack):
            raise ValueError(f"image[{number}] must be a single image, got shape {tuple(values.shape)}")
        given = image_object(values, f"image[{number}]", "auto" if layout is None else layout.channel_axis)
        own = {name: bare(_item_of(name, other, number, len(images))) for name, other in others.items()}
        own["missing"] = _union(own["missing"], masked)
        made = request(given, settings, **own)
        requests.append(made._replace(problem=replace(made.problem, name=f"{number}: {made.problem.name}")))
        closes.append(close)
    found: list[Recovery] = []
    with _run(progress, settings, [each.loaded.format.size for each in requests]) as (stop, report):
        for group in _groups_by_size(requests):
            for recovery in restore(group, settings, stop, report):
                if recovery is None:
                    raise KeyboardInterrupt
                warn(recovery, settings, stacklevel=3)
                found.append(closes[len(found)](recovery))
    return found


def _item_of(name: str, other: Any, number: int, count: int) -> Any:
    """Return the mask or truth of one of several images."""
    if not isinstance(other, list | tuple):
        return other
    if len(other) != count:
        raise ValueError(f"{name} must have one entry per image, {count}, got {len(other)}")
    return other[number]


def _groups_by_size(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Yield groups of images that are recovered together, by their number of pixels."""
    group: list[Request] = []
    pixels = 0
    for each in requests:
        group.append(each)
        pixels += each.problem.observation[0].numel()
        if pixels >= AT_ONCE:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _array_layout(values: Any, axis: Axis) -> Layout | None:
    """Return the axes of an array or tensor; ``None`` for single images."""
    if not isinstance(values, np.ndarray | Tensor):
        if axis != "auto":
            raise ValueError(f"channel_axis must be 'auto' for {type(values).__name__}, got {axis!r}")
        return None
    shape = tuple(values.shape)
    if axis == "auto" and len(shape) < 4:
        return None  # one image; invalid shapes raise an error later
    return layout_of(shape, axis, first=isinstance(values, Tensor))


def _union(missing: Any, masked: Any) -> Any:
    """Return the union of two masks, each of which may be ``None``."""
    if missing is None or masked is None:
        return masked if missing is None else missing
    return np.asarray(missing).astype(bool) | masked


@contextmanager
def _run(
    progress: bool | None, settings: Settings, sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[Callable[[], bool], Report]]:
    """Handle Ctrl-C, and show progress."""
    parts = 0
    for size, count in Counter(sizes).items():
        tile = settings.tile_for((1, *size))
        parts += count * (1 if tile is None else len(cover(size, tile).places))
    total = settings.maximum * parts
    with (
        first_interrupt() as interrupted,
        live_widget(progress) as is_live,
        progress_bar(False if is_live else progress, total) as bar,
        report_to_listener(interrupted, bar, total) as (stop, report),
    ):
        yield stop, report
