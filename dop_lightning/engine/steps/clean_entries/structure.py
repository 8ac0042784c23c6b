"""First look at an observation, before any fit: distinguish outliers from structure in the picture.

Shapes: C×H×W, an image.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dop_lightning.engine.steps.clean_entries.activity import activity
from dop_lightning.engine.steps.clean_entries.interpolation import interpolate
from dop_lightning.engine.steps.clean_entries.medians import window_median
from dop_lightning.engine.steps.clean_entries.places import Places, place_evidence
from dop_lightning.engine.steps.clean_entries.sharp import Sign, of_sign, sharp_outliers
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE, Bins, fit_values

SIDE = 5
"""Side of the window of the median, pixels."""

MAX_CLEAN_DISTANCE = 0.06
"""If all entries are within this distance of the median, in scales of the observation, there are no outliers."""

MIN_OUTLIER_FRACTION = 0.06
"""Outlier fraction of the entries that stand out below which they are all clean: letters have dots, and lines have
ends."""

STRUCTURE = 0.3
"""Outlier fraction of the entries that stand out below which they mostly belong to the picture."""

MAX_FIRST_LOOK_FRACTION = 0.1
"""Outlier fraction of all entries above which the network decides even in a noise-limited frame."""

FEWEST = 1e-3
"""If the outlier fraction is below :data:`STRUCTURE`, outliers count as none below this fraction of all entries."""

MIN_COUNT = 4.0
"""Minimum number of outliers that the second look finds, after subtracting one standard deviation."""

FEW = 0.02
"""Maximum fraction of far outliers for which outliers nearer to their surroundings are searched for. If outliers are
frequent, their values identify the near ones."""

MIN_DISTANCE, MIN_DEVIATIONS = 0.08, 5.0
"""Minimum distance at which outliers are searched for, in scales of the observation and in standard deviations of the
difference of an entry and its median, estimated by the median."""

NORMAL_MEDIAN = 0.6745
"""Median of the magnitude of a normal distribution, in standard deviations."""

MAX_DISTANCE = 0.2
"""Maximum distance that may replace :data:`~dop_lightning.engine.steps.clean_entries.values.FAR_DISTANCE`."""

MIN_PURITY = 0.5
"""Minimum fraction of outliers among the entries between a smaller distance and the usual one."""

WINDOW, LOCAL_RATIO = 15, 6.0
"""Side of the window in which the root mean square distance from the median is computed, and the multiple of it that
most outliers exceed. Noise can be confined to a part of a picture, for example if the rest is black or white."""

MIN_GAIN = 1.5
"""Minimum number of outliers between a smaller distance and the usual one, relative to the number beyond the latter."""

MIN_NEAR_COUNT, NEAR_DEVIATIONS = 8.0, 2.0
"""Minimum number of these outliers, after subtracting this many standard deviations."""


class FirstLook(NamedTuple):
    """Result of the first look at an observation.

    Attributes:
        share: fraction of outliers among the entries that stand out, in [0, 1]; the others are lines, stars and edges.
            If no entry stands out, 0 if all entries are close to the median, else 1.
        clean: probability that each entry is clean, ``(C, H, W)``; 1 for entries that do not stand out.
        by_noise: whether the outliers were detected from the noise of the frame.
        median: median around each entry, ``(C, H, W)``, if it was computed; after a second look, the interpolation of
            the entries that stand out.
        distance: distance beyond which entries are far from their estimate, in scales of the observation.
    """

    share: float
    clean: Tensor
    by_noise: bool = False
    median: Tensor | None = None
    distance: float = FAR_DISTANCE

    @property
    def decides(self) -> bool:
        """Whether this result is final: the picture itself stands out, or the outliers were detected from the noise."""
        return self.by_noise or self.share < STRUCTURE


def first_look(
    y: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
    noise: float | None = None,
    sign: Sign = "auto",
) -> FirstLook:
    """Compare each entry with the median around it, and entries that stand out with their neighbours.

    :mod:`dop_lightning.engine.steps.clean_entries.places` distinguishes outliers from lines, and
    :mod:`dop_lightning.engine.steps.clean_entries.values` adds the evidence of their values. If most of the entries
    that stand out belong to the picture, a second look compares them with the interpolation from their neighbours. In a
    noise-limited frame, outliers are detected by :mod:`~dop_lightning.engine.steps.clean_entries.sharp`.

    Args:
        y: the observation, ``(C, H, W)``. With another number of dimensions, all entries count as clean, with share 1.
        scale: scale of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed. Unobserved entries have probability 0.
        per_pixel: whether the channels of a pixel are corrupted together.
        noise: standard deviation of the noise in the darker part of a noise-limited frame; ``None`` for others.
        sign: sign of the outliers, see :func:`~dop_lightning.engine.steps.clean_entries.sharp.sharp_outliers`.

    >>> y = torch.zeros(1, 32, 32)
    >>> y[0, 10] = 1.0  # a line
    >>> y[0, 20, 20] = 1.0  # a dead pixel
    >>> clean = first_look(y).clean[0]
    >>> bool(clean[10].min() > 0.9), bool(clean[20, 20] < 0.5)
    (True, True)
    """
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    if y.dim() != 3 or not bool(known.any()):
        return FirstLook(1.0, known.to(y.dtype))
    if noise is not None:
        found = sharp_outliers(y, known, noise, sign)
        if per_pixel:
            found = found.any(dim=0, keepdim=True).expand(y.shape)
        if float(found.sum()) <= MAX_FIRST_LOOK_FRACTION * float(known.sum()):
            return FirstLook(1.0, (known & ~found).to(y.dtype), by_noise=True)
    middle = window_median(y, known, SIDE)
    seen = beyond = _look_beyond(y, middle, FAR_DISTANCE, scale, known, sign)
    if not seen.is_many(known):
        seen = _look_nearer(seen, y, middle, scale, known, sign)
    estimate, far, places, distance = seen
    if places is None:
        flat = float((y - middle).abs()[known].max()) <= MAX_CLEAN_DISTANCE * scale
        return FirstLook(0.0 if flat else 1.0, known.to(y.dtype), median=estimate)
    if places.share < MIN_OUTLIER_FRACTION or (places.share < STRUCTURE and seen.number < FEWEST * float(known.sum())):
        return FirstLook(places.share, known.to(y.dtype), median=estimate)
    outlying = torch.zeros_like(y)
    outlying[far] = places.raw
    if seen is not beyond and beyond.places is not None:
        outlying[beyond.far] = beyond.places.raw
        far = far | beyond.far
    bins = Bins.of(torch.where(known, y, estimate).flatten(), estimate.flatten(), distance * scale)
    at = far.flatten()
    values = fit_values(bins, outlying.flatten(), at, known.flatten())
    odds = torch.logit(outlying[far]) + values.of(values.outliers.log() - values.missed.log())[at]
    outlying[far] = torch.sigmoid(odds)
    if per_pixel:
        outlying = outlying.amax(dim=0, keepdim=True).expand(y.shape)
    return FirstLook(places.share, (1 - outlying) * known, median=estimate, distance=distance)


class _Seen(NamedTuple):
    """Entries at some distance from an estimate.

    Attributes:
        estimate: ``(C, H, W)``.
        far: bool, ``(C, H, W)``.
        places: evidence of their places; ``None`` if there are none.
        distance: minimum distance from the estimate, in scales of the observation.
    """

    estimate: Tensor
    far: Tensor
    places: Places | None
    distance: float

    @property
    def number(self) -> float:
        """Estimated number of outliers among the far entries."""
        return 0.0 if self.places is None else self.places.share * float(self.far.sum())

    def is_many(self, known: Tensor) -> bool:
        """Return whether outliers are frequent among the entries."""
        return self.number > FEW * float(known.sum())


def _look_beyond(y: Tensor, middle: Tensor, distance: float, scale: float, known: Tensor, sign: Sign) -> _Seen:
    """Compare the entries beyond a distance from their median with their neighbours, see :func:`first_look`."""
    far = of_sign(y - middle, sign) & ((y - middle).abs() > distance * scale) & known
    if not bool(far.any()):
        return _Seen(middle, far, None, distance)
    places = place_evidence(y, middle, far, activity(middle), known, torch.Generator().manual_seed(0))
    seen = _Seen(middle, far, places, distance)
    if places.share < STRUCTURE:
        return _second_look(seen, y, scale, known, sign, STRUCTURE) or seen
    return seen


def _look_nearer(seen: _Seen, y: Tensor, middle: Tensor, scale: float, known: Tensor, sign: Sign) -> _Seen:
    """Search for outliers within the usual distance, as hot pixels in the dark, and return ``seen`` if there are none.

    The smallest distance is several times the deviation of the entries from their medians, so that noise and texture
    are not beyond it. Most entries between it and the usual distance must be outliers; otherwise, a larger distance is
    tested.
    """
    size = (y - middle).abs()
    deviation = float(size[known].median()) / scale / NORMAL_MEDIAN
    smallest = max(MIN_DISTANCE, MIN_DEVIATIONS * deviation)
    for distance in (smallest, math.sqrt(smallest * FAR_DISTANCE)):
        if distance > MAX_DISTANCE:
            break
        far = of_sign(y - middle, sign) & (size > distance * scale) & (size <= FAR_DISTANCE * scale) & known
        if float(far.sum()) <= MIN_GAIN * seen.number:
            continue
        places = place_evidence(y, middle, far, activity(middle), known, torch.Generator().manual_seed(0))
        near = _second_look(_Seen(middle, far, places, distance), y, scale, known, sign, MIN_PURITY)
        if near is None or near.is_many(known) or near.number < MIN_GAIN * seen.number:
            continue
        number = float(near.far.sum())
        least = max(MIN_NEAR_COUNT + NEAR_DEVIATIONS * math.sqrt(number), FEWEST * float(known.sum()))
        if near.number < least:
            continue
        usual = avg_pool2d(size.clamp_max(distance * scale).square(), WINDOW, 1, WINDOW // 2, count_include_pad=False)
        if float((near.far & (size > LOCAL_RATIO * usual.sqrt())).sum()) >= MIN_PURITY * number:
            return near
    return seen


def _second_look(seen: _Seen, y: Tensor, scale: float, known: Tensor, sign: Sign, purity: float) -> _Seen | None:
    """Interpolate the far entries, and return the entries that are far from the interpolation too.

    At edges and in fine texture, the interpolation is more accurate than the median. Both give an estimate of the
    number of outliers, and the smaller one counts. The result is ``None`` if it is too small to be distinguished from
    0, or if the fraction of outliers among the entries that stand out is below ``purity``.
    """
    middle, far, _, distance = seen
    estimate = torch.where(far, interpolate(y, known.to(y.dtype), far, first=middle), middle)
    away = far & of_sign(y - estimate, sign) & ((y - estimate).abs() > distance * scale)
    number = float(away.sum())
    second = place_evidence(y, estimate, away, activity(estimate), known, torch.Generator().manual_seed(0))
    count = min(second.share * number, seen.number)
    if count < purity * number or count - math.sqrt(number) < MIN_COUNT:
        return None
    return _Seen(estimate, away, replace(second, share=count / number), distance)
