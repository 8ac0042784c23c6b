r"""Whether an image has so few outliers, and is so easy to interpolate, that no network can improve it visibly.

With a share p of outliers and the mean square ``e²`` of the interpolation's error at held-out entries, the mean square
error of the result is expected to be ``p·e²``. Clean entries at highlights and stars that are rejected by mistake have
larger errors. They lie side by side, while outliers are independent: with clearly more adjacent pairs than by
chance, an image is not easy.

Shapes: C×H×W, an image.
"""

from torch import Tensor
from torch.nn.functional import avg_pool2d

MOST = 0.02
"""Largest share of outliers."""

PSNR = 50.0
"""Least expected PSNR of the result in dB. Its errors are far below the noise of a camera."""

ADJACENT = 0.1
"""Mean number of outliers among the 8 neighbours of an outlier, beyond that expected by chance."""


def are_few(clean: Tensor) -> bool:
    """Return whether at most :data:`MOST` of the entries are outliers, and at least one."""
    return 0 < float((1 - clean).mean()) <= MOST


def is_easy(y: Tensor, clean: Tensor, estimate: Tensor, held_out: Tensor, scale: float = 1.0) -> bool:
    """Return whether the interpolation alone restores an image without visible errors.

    Args:
        y: the observation, ``(C, H, W)``, all of it observed.
        clean: w, the probability that each entry is clean, the same shape.
        estimate: the interpolation, the same shape.
        held_out: bool, entries that it was made without, the same shape.
        scale: of the observation, above 0.

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
