"""Restore the array of a napari layer, and convert the result to layers.

Shapes: H×W pixels, C channels; ``*`` are the axes of a stack.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from dop_lightning.images.recover import recover_image
from dop_lightning.integrations.napari.samples import LayerData

LeadingAxis = Literal["slices", "channels"]
"""Meaning of the axis before rows and columns."""

PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""Arguments of a layer that specify its position."""


def restored(data: Any, rgb: bool, leading: LeadingAxis, options: Mapping[str, Any]) -> Any:
    """Recover the data of an image layer.

    Args:
        data: ``(*, H, W)``, or ``(*, H, W, 3)`` or ``(*, H, W, 4)`` for RGB layers. Alpha is kept.
        rgb: whether the last axis is the colour axis.
        leading: meaning of the axis before rows and columns in layers that are not RGB.
        options: further arguments of :func:`~dop_lightning.recover_image`.

    Returns:
        A :class:`~dop_lightning.images.recovery.Recovery` or
        :class:`~dop_lightning.images.stack_recovery.StackRecovery`.

    Raises:
        ValueError: the data are not images, or an option is out of range.
    """
    values = np.asarray(data)
    axis: int | None = None
    if rgb:
        values, axis = values[..., :3], values.ndim - 1
    elif leading == "channels":
        if values.ndim < 3:
            raise ValueError(f"the leading axis must be slices for a layer with 2 axes, got {leading!r}")
        axis = values.ndim - 3
    return recover_image(values, channel_axis=axis, progress=False, **options)


def layers_of(recovery: Any, data: Any, name: str, rgb: bool, place: Mapping[str, Any]) -> list[LayerData]:
    """Return the layers of a recovery: image, labels (1 is corrupted), and the probability of corruption if known.

    Labels and probability have the axes of the image. For RGB images, they have one entry per pixel, and a pixel is
    corrupted if one of its colours is.

    Args:
        recovery: result of :func:`restored`.
        data: data of the original layer.
        name: name of the original layer.
        rgb: whether the last axis is the colour axis.
        place: position of the original layer, see :data:`PLACE`.
    """
    image, mask, probability = recovery.image, recovery.mask, recovery.corruption_probability
    values = np.asarray(data)
    if rgb and values.shape[-1] == 4:
        image = np.concatenate([image, values[..., 3:]], axis=-1)
    if rgb:
        mask = mask.any(axis=-1)
        probability = None if probability is None else probability.max(axis=-1)
    layers: list[LayerData] = [(image, {"name": f"{name} restored", "rgb": rgb, **place}, "image")]
    if probability is not None:
        shown = {"colormap": "magma", "contrast_limits": (0.0, 1.0), "visible": False}
        layers.append((probability, {"name": f"{name} probability", **shown, **place}, "image"))
    layers.append((mask.astype(np.uint8), {"name": f"{name} corruption", **place}, "labels"))
    return layers
