"""First look at an observation, before any fit: distinguish outliers from structure in the picture.

Shapes: C×H×W, an image.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

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


class FirstLook(NamedTuple):
    """Result of the first look at an observation.

    Attributes:
        share: fraction of outliers among the entries that stand out, in [0, 1]; the others are lines, stars and edges.
            If no entry stands out, 0 if all entries are close to the median, else 1.
        clean: probability that each entry is clean, ``(C, H, W)``; 1 for entries that do not stand out.
        by_noise: whether the outliers were detected from the noise of the frame.
        median: median around each entry, ``(C, H, W)``, if it was computed; after a second look, the interpolation of
            the entries that stand out.
    """

    share: float
    clean: Tensor
    by_noise: bool = False
    median: Tensor | None = None

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
    far = of_sign(y - middle, sign) & ((y - middle).abs() > FAR_DISTANCE * scale) & known
    if not bool(far.any()):
        flat = float((y - middle).abs()[known].max()) <= MAX_CLEAN_DISTANCE * scale
        return FirstLook(0.0 if flat else 1.0, known.to(y.dtype), median=middle)
    places = place_evidence(y, middle, far, activity(middle), known, torch.Generator().manual_seed(0))
    if places.share < STRUCTURE and (second := _second_look(y, middle, far, places, scale, known, sign)):
        middle, far, places = second
    few = places.share * float(far.sum()) < FEWEST * float(known.sum())
    if places.share < MIN_OUTLIER_FRACTION or (places.share < STRUCTURE and few):
        return FirstLook(places.share, known.to(y.dtype), median=middle)
    outlying = torch.zeros_like(y)
    outlying[far] = places.raw
    bins = Bins.of(torch.where(known, y, middle).flatten(), middle.flatten(), FAR_DISTANCE * scale)
    at = far.flatten()
    values = fit_values(bins, outlying.flatten(), at, known.flatten())
    odds = torch.logit(places.raw) + values.of(values.outliers.log() - values.missed.log())[at]
    outlying[far] = torch.sigmoid(odds)
    if per_pixel:
        outlying = outlying.amax(dim=0, keepdim=True).expand(y.shape)
    return FirstLook(places.share, (1 - outlying) * known, median=middle)


def _second_look(
    y: Tensor, middle: Tensor, far: Tensor, places: Places, scale: float, known: Tensor, sign: Sign
) -> tuple[Tensor, Tensor, Places] | None:
    """Interpolate the far entries, and return the estimate, the entries far from it too, and the evidence of places.

    At edges and in fine texture, the interpolation is more accurate than the median. Both give an estimate of the
    number of outliers, and the smaller one counts. The result is ``None`` if it is too small to be distinguished from 0
    or, relative to the number of entries that stand out, from structure.
    """
    estimate = torch.where(far, interpolate(y, known.to(y.dtype), far, first=middle), middle)
    away = far & of_sign(y - estimate, sign) & ((y - estimate).abs() > FAR_DISTANCE * scale)
    number = float(away.sum())
    second = place_evidence(y, estimate, away, activity(estimate), known, torch.Generator().manual_seed(0))
    count = min(second.share * number, places.share * float(far.sum()))
    if count < STRUCTURE * number or count - math.sqrt(number) < MIN_COUNT:
        return None
    return estimate, away, replace(second, share=count / number)
