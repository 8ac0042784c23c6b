r"""Kriging of residuals: predict what an estimate misses at an entry from the residuals around it.

An estimate x̂ of an image, from a network that is still coarse or from a mean over neighbours, leaves residuals
``r = y − x̂`` that are correlated between neighbouring pixels and, more strongly, between the channels of a pixel.
Simple kriging [Matheron, 1963] is the best linear prediction of one residual from others. With N the clean entries of
the window around entry t, t itself excluded, and with A the second moments of the residuals in such windows,

    ``r̂_t = A_{tN} · (A_{NN} + νD)⁻¹ · r_N``,   D the diagonal of A_{NN}.

The sum ``x̂ + r̂`` is known as regression kriging [Hengl et al., 2007]. A is estimated from all pairs of clean entries of
the same image. An entry takes no part in its own prediction, so the error at clean entries is that at corrupted ones.

Shapes: C×H×W, an image; P pixels of a strip; N = C·(2R + 1)² entries of a window.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

NUGGET = 0.01
"""ν: the share of its variance that a residual has in common with no other."""

NEIGHBOURS = 26
"""Most entries that predict one: 3×3 pixels of 3 channels without the entry itself."""

SMALLEST = 1e-6
"""Least eigenvalue of A relative to the largest. Means over different pairs may give an indefinite A."""

STRIP = 3 << 16
"""Entries of a strip of the image whose windows are in memory at a time."""

CHUNK = 1 << 13
"""Linear systems that are solved at a time."""


def krige(residual: Tensor, clean: Tensor, at: Tensor | None = None) -> Tensor:
    """Predict residuals from those of the clean entries around them.

    The window has 5×5 pixels for one channel, and 3×3 for more. If it has more than :data:`NEIGHBOURS` entries, those
    of the largest covariance with t are used.

    Args:
        residual: r, ``(C, H, W)``; ignored where nothing is clean.
        clean: probability of each entry that it is clean, ``(C, H, W)``. It weights the moments, and reduces the
            correlation of an entry with its neighbours.
        at: bool, ``(C, H, W)``, the entries to predict; by default all.

    Returns:
        r̂, ``(C, H, W)``, in units of r; 0 at other entries and where no clean entry is in the window.

    >>> stripes = torch.tensor([1.0, -1.0]).repeat(1, 16, 8)
    >>> clean = torch.ones_like(stripes)
    >>> clean[0, 5, 5] = 0
    >>> round(float(krige(stripes, clean)[0, 5, 5]), 1)
    -1.0
    """
    side = 5 if residual.shape[0] == 1 else 3
    moments = _moments(residual, clean, side)
    found = torch.zeros_like(residual)
    if not bool(moments.any()):
        return found
    for rows, values, weights in _strips(residual, clean, side):
        for c, target in enumerate(range(side**2 // 2, len(moments), side**2)):
            wanted = slice(None) if at is None else torch.nonzero(at[c, rows].flatten()).flatten()
            near, prediction = _predictors(moments, target)
            predicted = _predict(moments[near][:, near], prediction, values[near][:, wanted], weights[near][:, wanted])
            found[c, rows].view(-1)[wanted] = predicted
    return found


def kriged(y: Tensor, estimate: Tensor, clean: Tensor, at: Tensor | None = None) -> Tensor:
    """Return ``x̂ + r̂`` within the range of the clean entries, or of x̂ where that is larger: regression kriging.

    Args:
        y: the observation, ``(C, H, W)``; ignored where nothing is clean.
        estimate: x̂, ``(C, H, W)``.
        clean: see :func:`krige`.
        at: see :func:`krige`; elsewhere x̂ is returned.
    """
    known = clean > 0
    if not bool(known.any()):
        return estimate
    low, high = y[known].aminmax()
    predicted = estimate + krige(y - estimate, clean, at)
    return predicted.clamp(torch.minimum(estimate, low), torch.maximum(estimate, high))


def _strips(residual: Tensor, clean: Tensor, side: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The rows of each strip, with its windows: ``w∘r`` and w, each ``(N, P)``."""
    channels, height, width = residual.shape
    radius = side // 2
    both = torch.stack([torch.where(clean > 0, clean * residual, 0), clean.to(residual.dtype)])
    around = pad(both, [radius] * 4)
    rows = max(1, STRIP // (channels * width))
    for begin in range(0, height, rows):
        end = min(begin + rows, height)
        values, weights = unfold(around[:, :, begin : end + 2 * radius], side)
        yield slice(begin, end), values, weights


def _moments(residual: Tensor, clean: Tensor, side: int) -> Tensor:
    """A + νD, ``(N, N)``: second moments of residuals in a window, positive definite; zeros if there are none."""
    entries = residual.shape[0] * side**2
    products, pairs = (residual.new_zeros(entries, entries) for _ in range(2))
    for _, values, weights in _strips(residual, clean, side):
        products.addmm_(values, values.mT)
        pairs.addmm_(weights, weights.mT)
    moments = (products / pairs.clamp_min(1)).cpu().double()
    eigenvalues, vectors = torch.linalg.eigh((moments + moments.mT) / 2)
    least = SMALLEST * float(eigenvalues[-1])
    if not least > 0:  # nothing is clean, or the estimate is exact
        return torch.zeros_like(products)
    moments = vectors * eigenvalues.clamp_min(least) @ vectors.mT
    return (moments + NUGGET * torch.diag(moments.diagonal())).to(products)


def _predictors(moments: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The positions of the entries of a window that predict one of them, and their moments with it."""
    prediction = moments[target].clone()
    prediction[target] = 0
    near = prediction.abs().argsort(descending=True, stable=True)[: min(NEIGHBOURS, len(moments) - 1)].sort().values
    return near, prediction[near]


def _predict(moments: Tensor, prediction: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Solve a system for each of P entries: ``(P,)``.

    Args:
        moments: ``(n, n)``, of the entries that predict.
        prediction: ``(n,)``, their moments with the entry that is predicted.
        values: ``w∘r``, ``(n, P)``.
        weights: w, ``(n, P)``.
    """
    variance = moments.diagonal()
    found = []
    for value, weight in zip(values.mT.split(CHUNK), weights.mT.split(CHUNK), strict=True):
        systems = moments * weight.unsqueeze(2) * weight.unsqueeze(1)
        systems.diagonal(dim1=1, dim2=2).add_((1 - weight) * variance)
        factors, _ = torch.linalg.cholesky_ex(systems)
        solved = torch.cholesky_solve((prediction * weight).unsqueeze(2), factors)
        found.append((solved.squeeze(2) * value).sum(1))
    return torch.cat(found)
