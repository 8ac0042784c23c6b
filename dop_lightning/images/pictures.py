"""Pictures for people: 8-bit grey or RGB arrays of what was observed, recovered, and found corrupted.

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
"""The colours of a heat map end at this quantile of the absolute values, so that outliers do not wash out the rest."""

MISSING_GREY = 128
"""Entries that were never observed; neither end of a grey scale, and no colour of a heat map."""

PANEL_HEIGHT = 240
"""Panels of a comparison are enlarged to at least this height, in pixels."""

PANEL_LIMIT = 1024
"""Panels of a comparison, and heat maps of a recovery, are at most this wide and high, in pixels."""

# Blue, white, red: ColorBrewer's RdBu with a pure white centre, told apart by colour-blind eyes too.
_COLOURS = np.array(
    [
        [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [255, 255, 255],
        [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
    ]
)  # fmt: skip


def corruption_map(s: Tensor, data_range: float = 1.0) -> Picture:
    """The largest |s| over the channels of each pixel: black is clean, white is off by the whole range.

    Args:
        s: the corruption ``(C, H, W)``.
        data_range: the width of the range of the signal, in its units.

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: ``s`` has another number of dimensions, or ``data_range`` is not above 0.
    """
    if s.ndim != 3:
        raise ValueError(f"s must have shape (C, H, W), got {tuple(s.shape)}")
    return _levels(s.abs().amax(0), data_range)


def probability_map(probability: Tensor) -> Picture:
    """The largest probability over the channels of each pixel: black is clean, white is corrupted.

    Args:
        probability: ``(C, H, W)`` in [0, 1].

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: ``probability`` has another number of dimensions.
    """
    if probability.ndim != 3:
        raise ValueError(f"probability must have shape (C, H, W), got {tuple(probability.shape)}")
    return _levels(probability.amax(0), 1.0)


AT_ONCE = 2**16
"""Entries of a matrix that are coloured at once."""

SAMPLE = 2**20
"""Entries that the limit of a matrix is taken from."""


def heatmap(matrix: Tensor, limit: float | None = None) -> Picture:
    """Colours of the entries: blue below 0, white at 0, red above; grey where NaN.

    Args:
        matrix: ``(n, m)``.
        limit: the absolute value at which the colours end, in the units of the matrix; by default
            :func:`colour_limit` of it.

    Returns:
        ``(n, m, 3)``.

    Raises:
        ValueError: the matrix has another number of dimensions, or ``limit`` is not above 0.
    """
    if matrix.ndim != 2:
        raise ValueError(f"matrix must have shape (n, m), got {tuple(matrix.shape)}")
    limit = colour_limit(matrix) if limit is None else positive("limit", limit)
    anchors = np.linspace(-1, 1, len(_COLOURS))
    picture = np.empty((*matrix.shape, 3), dtype=np.uint8)
    height = max(1, AT_ONCE // max(1, matrix.shape[1]))
    for top in range(0, len(matrix), height):
        values = matrix[top : top + height].detach().double().cpu().numpy()
        with np.errstate(over="ignore"):  # what is beyond the limit is as dark as can be
            position = np.clip(np.nan_to_num(values / limit, posinf=1.0, neginf=-1.0), -1, 1)
        colours = np.stack([np.interp(position, anchors, channel) for channel in _COLOURS.T], axis=-1)
        colours[np.isnan(values)] = MISSING_GREY
        picture[top : top + height] = colours.round()
    return picture


def colour_limit(matrix: Tensor) -> float:
    """Return the 98th percentile of the finite absolute values; their maximum where that is 0; else 1.

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
    """Pictures side by side on white, each with its label above.

    Small ones are enlarged by a whole factor, pixel by pixel; large ones averaged down by a whole factor.

    Args:
        panels: labels and pictures, from left to right.

    Returns:
        RGB, ``(H, W, 3)``.

    Raises:
        ValueError: there is no panel, or one that is not a picture.
    """
    if not panels:
        raise ValueError("panels must hold at least one picture, got none")
    font = ImageFont.load_default(size=18)
    gap, head = 12, 32
    pictures = [_fit(label, picture) for label, picture in panels]
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
        # A clean corruption is a white heat map, which would not be seen on white.
        frame = (corner[0] - 1, corner[1] - 1, corner[0] + picture.width, corner[1] + picture.height)
        draw.rectangle(frame, outline="silver")
        left += width + gap
    return np.array(sheet)  # a copy that may be written, as torch expects


def recovery_pictures(outcome: Outcome) -> dict[str, Picture]:
    """Pictures of one recovery: ``observation``, ``recovered``, ``corruption``, ``truth``, and ``comparison`` of these.

    An image (its range known) is shown as it is, its corruption as :func:`corruption_map`. Of two channels the first
    is shown, as grey; of four and more channels 1, 2 and 3, as red, green and blue; the corruption is of all. A matrix
    is shown as heat maps with one limit for all, by the truth or else the recovered matrix, thinned out evenly where it
    has more than 1024 rows or columns. Entries that were never observed are grey in the observation.

    What has no picture is left out: the observation and the corruption of a matrix that was measured as a vector, and
    everything where the signal is of another shape. ``corruption_probability`` of an image, where it is known, is shown
    as :func:`probability_map`, and not in the comparison.
    """
    problem, signal = outcome.problem, outcome.signal
    tensors = {"observation": observed(problem), "recovered": signal, "corruption": outcome.corruption}
    if problem.truth is not None:
        tensors["truth"] = problem.truth
    pictures = problem_pictures(problem, tensors)
    if not pictures:
        return {}
    unit = "" if signal.ndim == 3 else f" (±{_limit(problem, tensors):.3g})"
    sheet = comparison([(label + unit, picture) for label, picture in pictures.items()])
    probability = outcome.corruption_probability
    if probability is not None and probability.ndim == 3:
        pictures["corruption_probability"] = probability_map(probability)
    return {**pictures, "comparison": sheet}


def observed(problem: Problem) -> Tensor:
    """Return the observation, with NaN where nothing was observed."""
    y = problem.observation
    return y if problem.mask is None else y.masked_fill(~problem.mask, math.nan)


def problem_pictures(problem: Problem, tensors: Mapping[str, Tensor]) -> dict[str, Picture]:
    """Return pictures of tensors of one problem, see :func:`recovery_pictures`.

    Args:
        problem: an image or a matrix; anything else has no pictures.
        tensors: by label. ``corruption`` of an image is shown as a map. Heat maps have one limit for all, by the truth,
            or else by ``recovered``, or else by the first tensor.

    Returns:
        By label; a tensor that is not of the kind of the signal is left out.
    """
    dimensions = tensors["recovered"].ndim if "recovered" in tensors else len(problem.signal_shape)
    kept = {label: tensor for label, tensor in tensors.items() if tensor.ndim == dimensions}
    if dimensions == 3 and problem.data_range is not None:
        return {label: _of_image(label, tensor, problem.data_range) for label, tensor in kept.items()}
    if dimensions == 2 and kept:
        limit = _limit(problem, kept)
        return {label: heatmap(_thin(tensor), limit) for label, tensor in kept.items()}
    return {}


def _limit(problem: Problem, tensors: Mapping[str, Tensor]) -> float:
    """The absolute value at which the colours of all heat maps of a problem end."""
    if problem.truth is not None:
        return colour_limit(problem.truth)
    return colour_limit(tensors["recovered"] if "recovered" in tensors else next(iter(tensors.values())))


def _of_image(label: str, tensor: Tensor, data_range: float) -> Picture:
    """The picture of an image ``(C, H, W)``, or of its corruption."""
    if label == "corruption":
        return corruption_map(tensor, data_range)
    return image_picture(tensor[: 1 if len(tensor) < 3 else 3], data_range)


def image_picture(values: Tensor, data_range: float = 1.0) -> Picture:
    """``(C, H, W)`` in [0, data_range], C 1 or 3, as uint8 ``(H, W)`` or ``(H, W, 3)``; grey where NaN."""
    levels = _levels(values, data_range)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))


def _levels(values: Tensor, data_range: float) -> Picture:
    """Values of [0, data_range] as levels 0 … 255; grey where NaN. Any shape, and the same shape back."""
    levels = shades(values, data_range).mul_(255).round_()  # in place: an image may be large
    return levels.to(torch.uint8).numpy()


def shades(values: Tensor, data_range: float = 1.0) -> Tensor:
    """Return values of [0, data_range] as shades in [0, 1]; grey where NaN. Any shape, float32 on the CPU."""
    scaled = values.detach().float().cpu() / positive("data_range", data_range)
    return scaled.nan_to_num_(nan=MISSING_GREY / 255).clamp_(0, 1)


def _thin(matrix: Tensor) -> Tensor:
    """Every k-th row and column of a large matrix; averages would hide sparse entries."""
    rows, columns = (_every(side) for side in matrix.shape)
    return matrix[::rows, ::columns]


def _every(side: int) -> int:
    return math.ceil(side / PANEL_LIMIT) or 1


def thinned_side(side: int) -> int:
    """How many pixels of a heat map stand for so many rows or columns of a matrix.

    >>> thinned_side(50), thinned_side(1025)
    (50, 513)
    """
    return math.ceil(side / _every(side))


def _fit(label: str, picture: Picture) -> Image.Image:
    """A picture as a panel of a size for screens."""
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
