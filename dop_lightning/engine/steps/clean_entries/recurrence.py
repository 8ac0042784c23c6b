r"""Evidence from recurring patterns: in drawings, text and screenshots the same pixels recur with the same neighbours.

The place of an outlier is independent of its neighbours, so other places with the same neighbours have other values.
Let entry i have the value v, and let w be the probability that it is clean, from other evidence. Let n be the sum of w
over the other places with the same 8 neighbours, and m the sum over those that also have the value v. With p the
fraction of outliers, and q(v) the fraction of outliers with value v,

    ``c = p·q(v) / (1 − p)``,   ``P₀ = min(1, c·w/(1 − w))``,   ``P = (m + P₀)/(n + 1)``,   ``w' = P/(P + c)``.

P₀ is the probability of the value v for a clean entry that w implies. P is its update by the recurrences, with a
pseudocount of 1. In photographs, patterns do not recur: ``n = 0`` and ``w' = w``.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.neighbours import STEPS

MIN_EQUAL_FRACTION = 0.25
"""Minimum fraction of entries that equal their right neighbour. Below it, the image is not a drawing, and patterns do
not recur."""

MAX_OUTLIER_FRACTION = 0.25
"""Maximum fraction of outliers; with more, hardly any entry has 8 clean neighbours."""

FACTOR = 6364136223846793005
"""Odd factor of a linear congruential hash modulo 2⁶⁴ [Knuth, MMIX]."""


def with_recurrence(y: Tensor, clean: Tensor, observed: Tensor | None = None, per_pixel: bool = False) -> Tensor:
    """Return the probability that each entry is clean, given how often its pattern recurs.

    Args:
        y: the observation, ``(C, H, W)``.
        clean: w from other evidence, in [0, 1], the same shape.
        observed: bool, the same shape; ``None`` if all are observed. Unobserved entries and their neighbours keep w.
        per_pixel: whether the channels of a pixel are corrupted together.

    >>> y = torch.zeros(1, 32, 32)
    >>> y[0, ::4] = 1.0  # lines
    >>> y[0, 8, 9] = 0.0  # a gap in one of them
    >>> clean = torch.full_like(y, 0.95)
    >>> clean = with_recurrence(y, clean)[0]
    >>> bool(clean[8, 9] < 0.8), bool(clean[8, 20] > 0.98)
    (True, True)
    """
    if y.dim() != 3 or min(y.shape[1:]) < 3:
        return clean
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    lost, prior = (1 - clean) * known, clean
    if per_pixel:
        known, lost = known.all(dim=0, keepdim=True), lost.amax(dim=0, keepdim=True)
        prior = clean.amin(dim=0, keepdim=True)
    share = float((lost * known).sum()) / max(1, int(known.sum()))
    if (
        not 0 < share <= MAX_OUTLIER_FRACTION
        or float((y[..., 1:] == y[..., :-1]).to(y.dtype).mean()) < MIN_EQUAL_FRACTION
    ):
        return clean
    values = _combine_hashes(_value_numbers(y)) if per_pixel else _value_numbers(y)
    inner = (..., slice(1, -1), slice(1, -1))
    around = _combine_hashes(torch.stack([_shift(values, *step) for step in STEPS]))[0]  # C H-2 W-2
    around = around + torch.arange(len(values), device=y.device).view(-1, 1, 1)  # separate patterns per channel
    whole = torch.stack([_shift(known, *step) for step in STEPS]).all(dim=0) & known[inner]
    prior = prior[inner]
    weights = prior * whole
    m, n = (
        (_sums_by_key(key, weights) - weights).clamp_min(0)
        for key in (_combine_hashes(torch.stack([around, values[inner]]))[0], around)
    )
    chance = _sums_by_key(values, lost * known)[inner] / (float(known.sum()) * (1 - share))  # p·q(v)/(1 − p)
    implied = (chance * prior / (1 - prior).clamp_min(1e-30)).clamp_max(1)  # P₀
    probability = (m + implied) / (n + 1)
    found = (probability / (probability + chance)).to(clean.dtype)
    result = clean.clone()
    result[inner] = torch.where(whole & (n > 0) & (chance > 0), found, clean[inner])
    return result


def _value_numbers(y: Tensor) -> Tensor:
    """Map equal values to equal integers: int64, the shape of ``y``."""
    return y.unique(return_inverse=True)[1]


def _combine_hashes(parts: Tensor) -> Tensor:
    """Hash integers along the first dimension into one, ``(1, …)``."""
    mixed = torch.zeros_like(parts[:1])
    for part in parts:
        mixed = (mixed ^ (mixed >> 29)) * FACTOR + part + 1
    return mixed


def _shift(image: Tensor, down: int, right: int) -> Tensor:
    """Return the entries ``down − 1`` below and ``right − 1`` to the right of the inner ones, ``(C, H−2, W−2)``."""
    height, width = image.shape[1:]
    return image[:, down : height - 2 + down, right : width - 2 + right]


def _sums_by_key(keys: Tensor, weights: Tensor) -> Tensor:
    """Return for each entry the sum of the weights of all entries with the same key."""
    places = keys.unique(return_inverse=True)[1]
    sums = weights.new_zeros(keys.numel()).index_add_(0, places.flatten(), weights.flatten())
    return sums[places]
