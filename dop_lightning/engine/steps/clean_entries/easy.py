r"""Detection of easy images: outliers so few and interpolation so accurate that a network gives no visible improvement.

Let p be the fraction of outliers and ``e²`` the mean squared error of the interpolation at held-out entries. The
expected mean squared error of the result is ``p·e²``. This is too low if clean entries, such as highlights and stars,
are rejected by mistake, because the interpolation error is larger there. Such entries are adjacent, while outliers are
independent. An image with clearly more adjacent pairs of outliers than expected by chance is therefore not easy.

Shapes: C×H×W, an image.
"""

from torch import Tensor
from torch.nn.functional import avg_pool2d

MAX_OUTLIER_FRACTION = 0.02
"""Maximum fraction of outliers."""

PSNR = 50.0
"""Minimum expected PSNR of the result in dB. At this level, errors are far below camera noise."""

ADJACENT = 0.1
"""Maximum mean number of outliers among the 8 neighbours of an outlier, in excess of the number expected by chance."""


def are_few(clean: Tensor) -> bool:
    """Return whether there are outliers, and their fraction is at most :data:`MAX_OUTLIER_FRACTION`."""
    return 0 < float((1 - clean).mean()) <= MAX_OUTLIER_FRACTION


def is_easy(y: Tensor, clean: Tensor, estimate: Tensor, held_out: Tensor, scale: float = 1.0) -> bool:
    """Return whether the interpolation alone restores an image without visible errors.

    Args:
        y: fully observed image, ``(C, H, W)``.
        clean: w, probability that each entry is clean, ``(C, H, W)``, in [0, 1].
        estimate: the interpolation, ``(C, H, W)``.
        held_out: bool, entries predicted without their own value, ``(C, H, W)``.
        scale: scale of the observation, positive.

    >>> import torch
    >>> y = torch.linspace(0, 1, 64).expand(1, 64, 64)
    >>> clean = torch.ones_like(y)
    >>> clean[0, ::16, ::16] = 0
    >>> held_out = torch.ones_like(y, dtype=torch.bool)
    >>> is_easy(y, clean, y + 0.02, held_out), is_easy(y, clean, y + 0.1, held_out)
    (True, False)
    >>> clean[0, 8:10] = 0
    >>> is_easy(y, clean, y + 0.02, held_out)
    False
    """
    outlying = 1 - clean
    share = float(outlying.mean())
    weights = clean * held_out
    if not are_few(clean) or not bool((weights > 0).any()):
        return False
    error = float(((estimate - y).square() * weights).sum() / weights.sum()) / scale**2
    around = 9 * avg_pool2d(outlying, 3, 1, 1) - outlying
    adjacent = float((around * outlying).sum() / outlying.sum().clamp_min(1e-12))
    return share * error <= 10 ** (-PSNR / 10) and adjacent <= ADJACENT + 8 * share
