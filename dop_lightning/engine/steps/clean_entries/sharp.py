r"""Outliers of a noise-limited frame: cosmic rays, hot and dead pixels are sharper than any optics.

The optics spread a star over several pixels, but not the impact of a particle on the detector. The Laplacian
distinguishes them, as in van Dokkum, *Cosmic-ray rejection by Laplacian edge detection*, PASP 113 (2001). With the
differences u, d, l, r between an entry and its four neighbours,

    ``L = ⅛ Σ max(0, v + h)``, the sum over v ∈ {u, d} and h ∈ {l, r},

which is A for a single entry that is A above its surroundings. An entry is an outlier if ``S = L/σ``, minus the median
of S in a window of 5×5, is above :data:`MIN_DEVIATION`, and above :data:`MIN_LAPLACIAN_RATIO` times the fine structure
``F = (med₃(y) − med₇(med₃(y)))/σ``, which is large for a star and small for a single entry. Neighbours of an outlier
that deviate significantly are outliers too, because particle tracks are several pixels long. Negative outliers are
detected in the negated frame. σ is estimated by :mod:`~dop_lightning.engine.steps.clean_entries.level_noise`.

Shapes: C×H×W, an image.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from dop_lightning.engine.steps.clean_entries.level_noise import SIDE, level_noise
from dop_lightning.engine.steps.clean_entries.medians import window_median, window_median_at
from dop_lightning.foundation.checks import one_of

Sign = Literal["auto", "both", "positive", "negative"]

MIN_DEVIATION = 6.0
"""Minimum deviation of an outlier, in standard deviations of the noise."""

MIN_ADJACENT_DEVIATION = 4.5
"""Minimum deviation of an entry next to an outlier, in standard deviations of the noise."""

MIN_LAPLACIAN_RATIO = 5.0
"""Minimum ratio of the Laplacian of an outlier to the fine structure around it."""

MIN_STRUCTURE = 0.01
"""Lower bound of F."""

ROUNDS = 4
"""Maximum number of rounds. The medians exclude the outliers of the previous rounds."""

MIN_SIGN_RATIO = 0.1
"""Outliers of one sign are discarded if their number relative to those of the other sign is below this."""


def of_sign(off: Tensor, sign: Sign) -> Tensor:
    """Return which entries can be outliers given the sign of their deviation ``off``; bool, the same shape."""
    one_of("sign", sign, get_args(Sign))
    if sign == "positive":
        return off >= 0
    return off <= 0 if sign == "negative" else torch.ones_like(off, dtype=torch.bool)


def sharp_outliers(y: Tensor, known: Tensor, noise: float, sign: Sign = "auto") -> Tensor:
    """Return which entries of a frame are sharper than the optics allow; bool, ``(C, H, W)``.

    Args:
        y: the frame, ``(C, H, W)``.
        known: bool, the observed entries.
        noise: standard deviation of the noise in the darker part of the frame, above 0.
        sign: sign of the outliers; ``auto`` is both, or one if the other has fewer than a tenth as many outliers.

    >>> rows = torch.arange(32.0)
    >>> star = 100 * torch.exp(-((rows - 8) ** 2 + (rows[:, None] - 8) ** 2) / 4.5)
    >>> y = star[None] + torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> y[0, 20, 25] += 50
    >>> sharp_outliers(y, torch.ones_like(y, dtype=torch.bool), noise=1.0).nonzero().tolist()
    [[0, 20, 25]]
    """
    one_of("sign", sign, get_args(Sign))
    sides = {"positive": (1,), "negative": (-1,)}.get(sign, (1, -1))
    found = torch.zeros_like(known)
    above = torch.zeros_like(known)
    for _ in range(ROUNDS):
        left = known & ~found
        middle = window_median(y, left, SIDE)
        deviation = level_noise(y, middle, left, noise)
        filled = torch.where(left, y, middle)
        # replace known outliers, so that they do not affect their neighbours
        new = [_sharp_entries(torch.where(left, y, filled) * side, middle * side, deviation, left) for side in sides]
        more = torch.stack(new).any(dim=0)
        above |= more & (y > middle)
        if not bool((more & ~found).any()):
            break
        found |= more
    return _keep_dominant_sign(found, above) if sign == "auto" else found


def _sharp_entries(y: Tensor, middle: Tensor, deviation: Tensor, known: Tensor) -> Tensor:
    """Return which entries are sharp and significantly above their surroundings."""
    off = (y - middle) / deviation
    laplacian = _laplacian(y) / deviation
    candidates = (
        (laplacian > MIN_ADJACENT_DEVIATION) & (off > MIN_ADJACENT_DEVIATION) & known
    )  # few entries; subtracting the median can only reduce L
    laplacian = torch.where(candidates, laplacian - window_median_at(laplacian, known, 5, candidates), 0)
    fine = window_median_at(y, known, 3, max_pool2d(candidates.to(y.dtype)[None], 7, stride=1, padding=3)[0] > 0)
    structure = ((fine - window_median_at(fine, known, 7, candidates)) / deviation).clamp_min(MIN_STRUCTURE)
    first = (laplacian > MIN_DEVIATION) & (off > MIN_DEVIATION) & (laplacian > MIN_LAPLACIAN_RATIO * structure) & known
    adjacent = max_pool2d(first.to(y.dtype)[None], 3, stride=1, padding=1)[0] > 0
    return first | (adjacent & (laplacian > MIN_ADJACENT_DEVIATION) & (off > MIN_ADJACENT_DEVIATION) & known)


def _laplacian(y: Tensor) -> Tensor:
    around = pad(y[None], [1] * 4, mode="replicate")[0]
    down = [y - around[:, :-2, 1:-1], y - around[:, 2:, 1:-1]]
    across = [y - around[:, 1:-1, :-2], y - around[:, 1:-1, 2:]]
    return torch.stack([(v + h).clamp_min(0) for v in down for h in across]).sum(dim=0) / 8


def _keep_dominant_sign(found: Tensor, above: Tensor) -> Tensor:
    """Discard the outliers of one sign if they are few compared with those of the other."""
    high, low = int((found & above).sum()), int((found & ~above).sum())
    if low < MIN_SIGN_RATIO * high:
        return found & above
    return found & ~above if high < MIN_SIGN_RATIO * low else found
