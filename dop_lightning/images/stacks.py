"""Recover the images of a stack in one call, each independently of the others.

Memory holds the stack, its results, and the images in progress.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dop_lightning.images.image_objects import ImageObject, image_object
from dop_lightning.images.layout import Layout
from dop_lightning.images.progress import Report
from dop_lightning.images.recovery import Recovery
from dop_lightning.images.restoration import Request, request, restore, warn
from dop_lightning.images.settings import Settings
from dop_lightning.images.stack_recovery import StackRecovery

AT_ONCE = 16 * 96**2
"""Approximate total number of pixels of the images that are recovered together."""

Stack = np.ndarray | Tensor


def recover_stack(
    stack: Stack,
    layout: Layout,
    settings: Settings,
    stop: Callable[[], bool],
    report: Report,
    *,
    mask: Any = None,
    missing: Any = None,
    undamaged: Any = None,
    truth: Any = None,
    stacklevel: int = 2,
) -> StackRecovery | None:
    """Recover each image of a stack; ``None`` if it was interrupted before the first image started.

    Args:
        stack: the images.
        layout: axes of the stack.
        settings: settings of the recovery.
        stop: returns whether to stop after the block in progress.
        report: called with the number of iterations done, and scores.
        mask: true where a value was observed; with the shape of the stack, with or without channels, or of one image.
        missing: true where a value is missing; with the same shapes as ``mask``.
        undamaged: true where a value is known to be undamaged; with the same shapes as ``mask``.
        truth: the clean images, with the shape of the stack.
        stacklevel: stack level of warnings.

    Raises:
        ValueError: an image cannot be recovered; the message names its position.
    """
    others = {"mask": mask, "missing": missing, "undamaged": undamaged, "truth": truth}
    found: list[tuple[tuple[int, ...], Recovery | None]] = []
    result = _Result(stack, layout)
    positions, has_started = layout.indices(), False
    at_once = max(1, AT_ONCE // (layout.size[0] * layout.size[1]))
    while group := list(islice(positions, at_once)):
        if stop():
            found = [(position, None) for position in group]
        else:
            requests = [_request(stack, layout, at, settings, others) for at in group]
            found = list(zip(group, restore(requests, settings, stop, report), strict=True))
        for position, recovery in found:
            has_started = has_started or recovery is not None
            result.take(position, recovery)
            if recovery is not None and recovery.status != "interrupted":
                warn(recovery, settings, stacklevel + 1)
        if not has_started and stop():
            return None
    done = result.stack_recovery()
    if count := Counter(done.statuses.ravel().tolist())["interrupted"]:
        warnings.warn(
            f"interrupted: {count} of {done.statuses.size} images were not finished",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
    return done


def _image_at(stack: Stack, layout: Layout, position: tuple[int, ...]) -> ImageObject:
    name = f"image[{', '.join(map(str, position))}]"
    return image_object(stack[layout.index(position)], name, layout.channel_axis)


def _request(
    stack: Stack,
    layout: Layout,
    position: tuple[int, ...],
    settings: Settings,
    others: dict[str, Any],
) -> Request:
    given = _image_at(stack, layout, position)
    own = {key: _part_at(key, other, layout, position) for key, other in others.items()}
    return request(given, settings, **own)


def _part_at(name: str, other: Any, layout: Layout, position: tuple[int, ...]) -> Any:
    """Return the part of a mask or truth that belongs to one image."""
    if other is None:
        return None
    array = other.detach().cpu().numpy() if isinstance(other, Tensor) else np.asarray(other)
    shape, pixels = array.shape, layout.stack_shape + layout.size
    if shape == layout.shape:
        part = array[layout.index(position)]
        return part if layout.channels is None else np.moveaxis(part, layout.channel_axis or 0, 2)
    if name == "truth":
        raise ValueError(f"truth must have the shape of the stack, {layout.shape}, got {shape}")
    if shape == pixels:
        return array[position]
    if shape == layout.size:
        return array
    raise ValueError(f"{name} must have one of the shapes {layout.shape}, {pixels} and {layout.size}, got {shape}")


class _Result:
    """Arrays into which results are written, image by image."""

    def __init__(self, stack: Stack, layout: Layout) -> None:
        self.layout = layout
        self.image = stack.detach().clone() if isinstance(stack, Tensor) else np.array(stack, subok=False)
        self.arrays: dict[str, Any] = {}
        shape = layout.stack_shape
        self.statuses = np.full(shape, "interrupted", dtype="<U11")
        self.iterations = np.zeros(shape, dtype=np.int64)
        self.alphas = np.full(shape, np.nan)
        self.histories: dict[tuple[int, ...], Any] = {}
        self.seconds = 0.0

    def take(self, position: tuple[int, ...], recovery: Recovery | None) -> None:
        if recovery is None:
            return
        where = self.layout.index(position)
        self.image[where] = recovery.image
        for name in ("corruption", "corruption_probability", "mask"):
            if (values := getattr(recovery, name)) is not None:
                self._array(name, values)[where] = values
        self.statuses[position] = recovery.status
        self.iterations[position] = recovery.iterations
        self.alphas[position] = np.nan if recovery.alpha is None else recovery.alpha
        self.histories[position] = recovery.history
        self.seconds += recovery.seconds

    def _array(self, name: str, like: Any) -> Any:
        if name not in self.arrays:
            shape = self.layout.shape
            if isinstance(like, Tensor):
                self.arrays[name] = torch.zeros(shape, dtype=like.dtype, device=like.device)
            else:
                self.arrays[name] = np.zeros(shape, dtype=like.dtype)
            if name == "corruption_probability":
                self.arrays[name][...] = float("nan")
        return self.arrays[name]

    def stack_recovery(self) -> StackRecovery:
        return StackRecovery(
            self.image,
            self.arrays["corruption"],
            self.arrays.get("corruption_probability"),
            self.arrays["mask"],
            self.statuses,
            self.iterations,
            self.alphas,
            self.histories,
            self.seconds,
        )
