"""Pictures of observation, result and corruption, as 8-bit grey or RGB arrays.

Shapes: C channels, H × W pixels of an image; n × m a matrix; a picture is uint8, ``(H, W)`` or ``(H, W, 3)``.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.checks import positive
from dop_lightning.problems.problem import Problem

Picture = np.ndarray

QUANTILE = 0.98
"""Quantile of the absolute values at which the colours of a heat map end, so that outliers do not wash out the rest."""

MISSING_GREY = 128
"""Grey level of unobserved entries: neither end of the grey scale, and not a colour of heat maps."""

PANEL_HEIGHT = 240
"""Minimum height in pixels to which panels of a comparison are enlarged."""

PANEL_LIMIT = 1024
"""Maximum width and height in pixels of panels of a comparison and of heat maps of a recovery."""

# Blue, white, red: ColorBrewer's RdBu with a pure white centre, which is safe for colour-blind readers.
_COLOURS = np.array(
    [
        [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [255, 255, 255],
        [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
    ]
)  # fmt: skip


def corruption_map(s: Tensor, data_range: float = 1.0) -> Picture:
    """Draw the maximum of |s| over the channels of each pixel: black is clean, white is off by the whole range.

    Args:
        s: the corruption ``(C, H, W)``.
        data_range: width of the range of the signal, in its units; positive.

    Returns:
        Picture ``(H, W)``.

    Raises:
        ValueError: ``s`` does not have three dimensions, or ``data_range`` is not positive.
    """
    if s.ndim != 3:
        raise ValueError(f"s must have shape (C, H, W), got {tuple(s.shape)}")
    return _to_levels(s.abs().amax(0), data_range)


def probability_map(probability: Tensor) -> Picture:
    """Draw the maximum probability of corruption over the channels of each pixel: black is 0, white is 1.

    Args:
        probability: ``(C, H, W)`` in [0, 1].

    Returns:
        Picture ``(H, W)``.

    Raises:
        ValueError: ``probability`` does not have three dimensions.
    """
    if probability.ndim != 3:
        raise ValueError(f"probability must have shape (C, H, W), got {tuple(probability.shape)}")
    return _to_levels(probability.amax(0), 1.0)


AT_ONCE = 2**16
"""Number of entries of a matrix that are coloured at a time."""

SAMPLE = 2**20
"""Maximum number of entries from which the colour limit of a matrix is computed."""


def heatmap(matrix: Tensor, limit: float | None = None) -> Picture:
    """Draw a matrix as a heat map: blue below 0, white at 0, red above 0, grey for NaN.

    Args:
        matrix: ``(n, m)``.
        limit: absolute value at which the colours end, in the units of the matrix; positive. By default,
            :func:`colour_limit` of the matrix.

    Returns:
        Picture ``(n, m, 3)``.

    Raises:
        ValueError: ``matrix`` does not have two dimensions, or ``limit`` is not positive.
    """
    if matrix.ndim != 2:
        raise ValueError(f"matrix must have shape (n, m), got {tuple(matrix.shape)}")
    limit = colour_limit(matrix) if limit is None else positive("limit", limit)
    anchors = np.linspace(-1, 1, len(_COLOURS))
    picture = np.empty((*matrix.shape, 3), dtype=np.uint8)
    height = max(1, AT_ONCE // max(1, matrix.shape[1]))
    for top in range(0, len(matrix), height):
        values = matrix[top : top + height].detach().double().cpu().numpy()
        with np.errstate(over="ignore"):  # values beyond the limit are clipped
            position = np.clip(np.nan_to_num(values / limit, posinf=1.0, neginf=-1.0), -1, 1)
        colours = np.stack([np.interp(position, anchors, channel) for channel in _COLOURS.T], axis=-1)
        colours[np.isnan(values)] = MISSING_GREY
        picture[top : top + height] = colours.round()
    return picture


def colour_limit(matrix: Tensor) -> float:
    """Return the 98th percentile of the finite absolute values, or their maximum if that is 0, or 1 if both are 0.

    For large matrices, it is estimated from a random sample of entries with a fixed seed.
    """
    entries = matrix.detach().flatten()
    if entries.numel() > SAMPLE:
        drawn = torch.randint(entries.numel(), (SAMPLE,), generator=torch.Generator().manual_seed(0))
        entries = entries[drawn.to(entries.device)]
    values = entries.double().cpu().abs()
    finite = values[values.isfinite()].numpy()
    if finite.size == 0:
        return 1.0
    return float(np.quantile(finite, QUANTILE)) or float(finite.max()) or 1.0


def comparison(panels: Sequence[tuple[str, Picture]]) -> Picture:
    """Arrange pictures side by side on white, each below its label.

    Small pictures are enlarged by an integer factor without interpolation, large ones are reduced by an integer factor
    by averaging.

    Args:
        panels: labels and pictures, from left to right.

    Returns:
        RGB picture ``(H, W, 3)``.

    Raises:
        ValueError: ``panels`` is empty or contains an array that is not a picture.
    """
    if not panels:
        raise ValueError("panels must hold at least one picture, got none")
    font = ImageFont.load_default(size=18)
    gap, head = 12, 32
    pictures = [_scale_to_panel(label, picture) for label, picture in panels]
    labels = [math.ceil(font.getlength(label)) for label, _ in panels]
    widths = [max(picture.width, label) for picture, label in zip(pictures, labels, strict=True)]
    height = head + max(picture.height for picture in pictures) + gap
    sheet = Image.new("RGB", (gap + sum(width + gap for width in widths), height), "white")
    draw = ImageDraw.Draw(sheet)
    left = gap
    for (label, _), picture, width in zip(panels, pictures, widths, strict=True):
        draw.text((left + width / 2, head / 2), label, fill="black", font=font, anchor="mm")
        corner = (left + (width - picture.width) // 2, head)
        sheet.paste(picture, corner)
        # The frame makes heat maps of zeros visible, which are white on white.
        frame = (corner[0] - 1, corner[1] - 1, corner[0] + picture.width, corner[1] + picture.height)
        draw.rectangle(frame, outline="silver")
        left += width + gap
    return np.array(sheet)  # a writable copy, as torch expects


def recovery_pictures(outcome: Outcome) -> dict[str, Picture]:
    """Draw one recovery: ``observation``, ``recovered``, ``corruption``, ``truth`` if known, and their ``comparison``.

    Images (signals with three dimensions and a known range) are drawn directly, and their corruption as
    :func:`corruption_map` over all channels. Images with two channels show the first as grey; images with four or more
    channels show channels 1, 2 and 3 as red, green and blue. Matrices are drawn as heat maps with a common limit, that
    of the truth if known and otherwise that of the recovered matrix; if they have more than 1024 rows or columns, only
    every k-th is drawn. Unobserved entries are grey in the observation.

    Tensors without a picture are omitted: the observation and the corruption of a matrix that was measured as a vector,
    and signals that are neither an image nor a matrix. If known, ``corruption_probability`` of an image is drawn as
    :func:`probability_map`; it is not part of the comparison.
    """
    problem, signal = outcome.problem, outcome.signal
    tensors = {"observation": observed(problem), "recovered": signal, "corruption": outcome.corruption}
    if problem.truth is not None:
        tensors["truth"] = problem.truth
    pictures = problem_pictures(problem, tensors)
    if not pictures:
        return {}
    unit = "" if signal.ndim == 3 else f" (±{_colour_limit(problem, tensors):.3g})"
    sheet = comparison([(label + unit, picture) for label, picture in pictures.items()])
    probability = outcome.corruption_probability
    if probability is not None and probability.ndim == 3:
        pictures["corruption_probability"] = probability_map(probability)
    return {**pictures, "comparison": sheet}


def observed(problem: Problem) -> Tensor:
    """Return the observation, with NaN for unobserved entries."""
    y = problem.observation
    return y if problem.mask is None else y.masked_fill(~problem.mask, math.nan)


def problem_pictures(problem: Problem, tensors: Mapping[str, Tensor]) -> dict[str, Picture]:
    """Draw tensors of one problem; see :func:`recovery_pictures`.

    Args:
        problem: an image or a matrix; other problems have no pictures.
        tensors: tensors by label. ``corruption`` of an image is drawn as a map. Heat maps share the limit of the truth,
            if known, otherwise of ``recovered``, otherwise of the first tensor.

    Returns:
        Pictures by label; tensors with another number of dimensions than the signal are omitted.
    """
    dimensions = tensors["recovered"].ndim if "recovered" in tensors else len(problem.signal_shape)
    kept = {label: tensor for label, tensor in tensors.items() if tensor.ndim == dimensions}
    if dimensions == 3 and problem.data_range is not None:
        return {label: _draw_image(label, tensor, problem.data_range) for label, tensor in kept.items()}
    if dimensions == 2 and kept:
        limit = _colour_limit(problem, kept)
        return {label: heatmap(_subsample(tensor), limit) for label, tensor in kept.items()}
    return {}


def _colour_limit(problem: Problem, tensors: Mapping[str, Tensor]) -> float:
    """Return the absolute value at which the colours of all heat maps of a problem end."""
    if problem.truth is not None:
        return colour_limit(problem.truth)
    return colour_limit(tensors["recovered"] if "recovered" in tensors else next(iter(tensors.values())))


def _draw_image(label: str, tensor: Tensor, data_range: float) -> Picture:
    """Draw an image ``(C, H, W)`` or its corruption."""
    if label == "corruption":
        return corruption_map(tensor, data_range)
    return image_picture(tensor[: 1 if len(tensor) < 3 else 3], data_range)


def image_picture(values: Tensor, data_range: float = 1.0) -> Picture:
    """Convert ``(C, H, W)`` in [0, data_range], C 1 or 3, to uint8 ``(H, W)`` or ``(H, W, 3)``; NaN is grey."""
    levels = _to_levels(values, data_range)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))


def _to_levels(values: Tensor, data_range: float) -> Picture:
    """Convert values in [0, data_range] to levels 0 … 255 of the same shape; NaN is grey."""
    levels = shades(values, data_range).mul_(255).round_()  # in place, since images may be large
    return levels.to(torch.uint8).numpy()


def shades(values: Tensor, data_range: float = 1.0) -> Tensor:
    """Convert values in [0, data_range] to shades in [0, 1], float32 on the CPU, of the same shape; NaN is grey."""
    scaled = values.detach().float().cpu() / positive("data_range", data_range)
    return scaled.nan_to_num_(nan=MISSING_GREY / 255).clamp_(0, 1)


def _subsample(matrix: Tensor) -> Tensor:
    """Return every k-th row and column of a large matrix; averages would hide sparse entries."""
    rows, columns = (_stride(side) for side in matrix.shape)
    return matrix[::rows, ::columns]


def _stride(side: int) -> int:
    return math.ceil(side / PANEL_LIMIT) or 1


def thinned_side(side: int) -> int:
    """Return the number of pixels of a heat map along an axis with ``side`` rows or columns of a matrix.

    >>> thinned_side(50), thinned_side(1025)
    (50, 513)
    """
    return math.ceil(side / _stride(side))


def _scale_to_panel(label: str, picture: Picture) -> Image.Image:
    """Scale a picture to the size of a panel."""
    good = picture.dtype == np.uint8 and picture.size > 0 and (picture.ndim == 2 or picture.shape[2:] == (3,))
    if not good:
        raise ValueError(
            f"panels must be uint8 of shape (H, W) or (H, W, 3), got {picture.dtype} of {picture.shape} for {label!r}"
        )
    image = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    longer = max(image.size)
    if longer > PANEL_LIMIT:
        return image.reduce(math.ceil(longer / PANEL_LIMIT))
    factor = max(1, min(math.ceil(PANEL_HEIGHT / image.height), PANEL_LIMIT // longer))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
