"""Restore images in Python: what ``dop recover`` does with files, without a Trainer, folders and logs."""

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
from dop_lightning.images.following import followed
from dop_lightning.images.image_objects import Axis, image_object
from dop_lightning.images.interrupt import first_interrupt
from dop_lightning.images.layout import Layout, layout_of
from dop_lightning.images.live_widget import live_widget
from dop_lightning.images.presets import Per, Precision
from dop_lightning.images.progress import Tell, progress_bar
from dop_lightning.images.recovery import Recovery
from dop_lightning.images.restoration import Request, request, restore, warn
from dop_lightning.images.settings import Settings
from dop_lightning.images.stacks import AT_ONCE, recover_stack
from dop_lightning.images.tiles import cover


def recover_image(
    image: Any,
    *,
    mask: Any = None,
    missing: Any = None,
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
    tile: int | None = None,
    max_memory: str | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    progress: bool | None = None,
) -> Any:
    """Restore an image with dead or random pixels. Nothing needs to be known of the damage.

    It gives what ``dop recover`` gives for a file of the same values and the same options, bit for bit on the same
    machine with the same threads. Nothing is written; threads and random generators of the process stay as they are.
    In a container torch counts the cores of the whole machine: ``torch.set_num_threads`` with those that there are can
    make it many times faster there.

    Integers of 8 bits have values from 0 to 255; of others, and of floating point, the range is found, see
    :mod:`~dop_lightning.images.formats.value_range`. NaN and transparent pixels are missing, and come back filled in;
    alpha stays as it is.

    Several images come back together:

    - A list or tuple of images: a list, one :class:`Recovery` per image. Each has its own range of values.
    - An array or tensor of more dimensions, such as N×H×W×C, or a volume with ``channel_axis=None``: its images are
      recovered one after the other, with one range of values, into a
      :class:`~dop_lightning.images.stack_recovery.StackRecovery`. The last two axes that are not channels are rows and
      columns.
    - An array of dask or zarr: a :class:`~dop_lightning.images.chunked.ChunkedRecovery`, of dask a lazy one.

    Containers are kept: masked arrays come back with nothing masked, and a ``DataArray`` of xarray with its coordinates
    and attributes. In xarray, dimensions named ``x``, ``y``, ``lat``, ``lon``, … are rows and columns wherever they
    are, and one named ``band`` or ``channel`` holds channels.

    Ctrl-C, or the stop button of a notebook, ends the work after the block in progress, within about a second: what is
    recovered so far comes back with the status ``interrupted`` and a warning, tiles that have not begun as they were
    observed. A second Ctrl-C raises ``KeyboardInterrupt`` at once, and so does the first if nothing has begun.

    Args:
        image: a NumPy array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` (channels are the shorter of the first and the
            last axis, the last where these are equal; none is alpha), of booleans, integers or floats of up to 64 bits;
            an image of PIL of the modes 1, L, LA, P, RGB, RGBA, I, I;16 or F; a torch tensor ``(H, W)`` or
            ``(C, H, W)`` on any device; or a file of any kind that ``dop recover`` reads, or a sample, by name;
            ``"frame.fits[1]"`` and ``"frame.fits[SCI]"`` are one HDU of a file. Or several images, see above.
        mask: which values were observed: true, or above half of its largest value. Of any of these kinds, of the size
            of the image, with one channel or those of the image. A stack takes a mask of its shape, of its shape
            without channels, or of one image; a list takes a list, or one for all.
        missing: which values are missing and must be filled in, as in ``skimage.restoration.inpaint_biharmonic``: the
            opposite of ``mask``, of the same kinds and sizes. With both, a value counts if both say so.
        truth: the clean image, for scores alone; of any of these kinds, in the units and with the channels of the
            image.
        channel_axis: the axis of the channels, ``None`` if there is none; of a ``DataArray`` also its name. By default
            that of three axes which is the shorter of the first and the last one, and of more axes the last one if it
            has at most four entries; of tensors the one before rows and columns.
        value_range: the least and the largest clean value, in the units of the image.
        per: whether each channel of a pixel is corrupted independently, ``entry``, or the whole pixel, ``pixel``;
            ``auto`` estimates it if outliers have random values.
        damage: what is damaged besides isolated entries: ``points``, nothing; ``lines`` and ``auto``, dead rows
            and columns; ``scratches``, ``rectangles``, ``dust`` or ``text``, these as well; join several of them as
            in ``scratches+dust``. What is found counts as missing, and is filled in.
        outliers: ``positive`` (cosmic rays, hot pixels), ``negative`` or ``both``; ``auto`` finds it in frames that
            noise limits, and is both elsewhere. Not of the preset ``paper``.
        dense: ``keep`` dense noise beside the outliers where it is, or ``remove`` it; ``auto`` removes it where there
            is much of it in an image of 8 bits.
        preset: ``instant`` (no network), ``quick``, ``default``, ``best`` (for a GPU) or ``paper`` (days), see
            ``dop recover --help``.
        iterations: gradient iterations, at least 1; by default those of the preset.
        alpha: ratio of the learning rates, above 0; by default that of the preset, or by the size of the image.
        width: channels of the network, at least 1; by default that of the preset.
        seed: of the random numbers.
        tile: recover in overlapping tiles of this many pixels a side, at least 8; by default where memory needs it.
        max_memory: such as ``8G``: what takes more is recovered in tiles; by default four fifths of what is free.
        device: ``auto`` (that of a tensor on a GPU, else a GPU where there is one), ``cpu``, ``gpu``, or as torch names
            them: ``cuda:1``.
        precision: of the network, and of the products in its optimizer: ``fp32``, ``bf16``, or ``auto``, bf16 where the
            processor has units for it.
        progress: whether to show a bar; by default in notebooks and on terminals. In notebooks with ipywidgets (the
            extra ``notebook``), the image as it is recovered by now is shown as well.

    Returns:
        A :class:`Recovery`: the recovered image, of the same kind, and what was found of the corruption. For several
        images see above.

    Raises:
        ValueError: an argument is out of range, of no known kind, or no file; a mask or truth has another size; the
            image has no pixel, holds infinite values, or is too large for the memory.
        OutOfMemoryError: there was less memory than expected.

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
    if isinstance(image, list | tuple):
        settings = Settings.checked(image[0] if image else None, seed=seed, **options)
        return _listed(image, channel_axis, settings, progress, mask=mask, missing=missing, truth=truth)
    values, axis, masked, close = opened(image, channel_axis)
    mask, missing, truth = bare(mask), _either(bare(missing), masked), bare(truth)
    settings = Settings.checked(values, seed=seed, **options)
    if chunked.kind_of(values) is not None:
        if truth is not None:
            raise ValueError("truth must be None for arrays in chunks, got one")
        recover = partial(recover_image, **{**options, "progress": False})
        limits = settings.value_range
        return close(chunked.recover_chunks(values, axis, seed, limits, recover, mask=mask, missing=missing))
    layout = _layout(values, axis)
    if layout is not None and layout.stack:
        others = {"mask": mask, "missing": missing, "truth": truth}
        with _work(progress, settings, [layout.size] * math.prod(layout.stack_shape)) as (stop, tell):
            result: Any = recover_stack(values, layout, settings, stop, tell, **others, stacklevel=2)
        if result is None:
            raise KeyboardInterrupt
        return close(result)
    given = image_object(values, axis="auto" if layout is None else layout.channel_axis)
    asked = request(given, settings, mask=mask, missing=missing, truth=truth)
    with _work(progress, settings, [asked.loaded.format.size]) as (stop, tell):
        (recovery,) = restore([asked], settings, stop, tell)
    if recovery is None:
        raise KeyboardInterrupt
    warn(recovery, settings, stacklevel=2)
    return close(recovery)


def _listed(
    images: Sequence[Any], channel_axis: Axis | str, settings: Settings, progress: bool | None, **others: Any
) -> list[Recovery]:
    """Recover images of any sizes and kinds."""
    asked: list[Request] = []
    closes = []
    for number, image in enumerate(images):
        values, axis, masked, close = opened(image, channel_axis)
        layout = _layout(values, axis)
        if chunked.kind_of(values) is not None or (layout is not None and layout.stack):
            raise ValueError(f"image[{number}] must be a single image, got shape {tuple(values.shape)}")
        given = image_object(values, f"image[{number}]", "auto" if layout is None else layout.channel_axis)
        own = {name: bare(_of(name, other, number, len(images))) for name, other in others.items()}
        own["missing"] = _either(own["missing"], masked)
        made = request(given, settings, **own)
        asked.append(made._replace(problem=replace(made.problem, name=f"{number}: {made.problem.name}")))
        closes.append(close)
    found: list[Recovery] = []
    with _work(progress, settings, [each.loaded.format.size for each in asked]) as (stop, tell):
        for group in _groups(asked):
            for recovery in restore(group, settings, stop, tell):
                if recovery is None:
                    raise KeyboardInterrupt
                warn(recovery, settings, stacklevel=3)
                found.append(closes[len(found)](recovery))
    return found


def _of(name: str, other: Any, number: int, count: int) -> Any:
    """The mask or truth of one of several images."""
    if not isinstance(other, list | tuple):
        return other
    if len(other) != count:
        raise ValueError(f"{name} must have one entry per image, {count}, got {len(other)}")
    return other[number]


def _groups(asked: Sequence[Request]) -> Iterator[list[Request]]:
    """Images that are at work together, by their pixels."""
    group: list[Request] = []
    pixels = 0
    for each in asked:
        group.append(each)
        pixels += each.problem.observation[0].numel()
        if pixels >= AT_ONCE:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _layout(values: Any, axis: Axis) -> Layout | None:
    """The axes of an array or tensor; ``None`` of other images."""
    if not isinstance(values, np.ndarray | Tensor):
        if axis != "auto":
            raise ValueError(f"channel_axis must be 'auto' for {type(values).__name__}, got {axis!r}")
        return None
    shape = tuple(values.shape)
    if axis == "auto" and len(shape) < 4:
        return None  # what is no image is refused with the others
    return layout_of(shape, axis, first=isinstance(values, Tensor))


def _either(missing: Any, masked: Any) -> Any:
    """What one of two masks has, or both."""
    if missing is None or masked is None:
        return masked if missing is None else missing
    return np.asarray(missing).astype(bool) | masked


@contextmanager
def _work(
    progress: bool | None, settings: Settings, sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[Callable[[], bool], Tell]]:
    """Notice Ctrl-C and show a bar."""
    parts = 0
    for size, count in Counter(sizes).items():
        side = settings.side((1, *size))
        parts += count * (1 if side is None else len(cover(size, side).places))
    total = settings.maximum * parts
    with (
        first_interrupt() as interrupted,
        live_widget(progress) as is_live,
        progress_bar(False if is_live else progress, total) as bar,
        followed(interrupted, bar, total) as (stop, tell),
    ):
        yield stop, tell
