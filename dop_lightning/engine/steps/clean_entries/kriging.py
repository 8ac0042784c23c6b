r"""Kriging: predict what an estimate misses at an entry from the residuals around it.

An estimate x̂ of an image, a local mean or the output of a network, leaves residuals ``r = y − x̂`` that are correlated
between neighbouring pixels and, more strongly, between the channels of a pixel. Simple kriging [Matheron, 1963] is the
best linear prediction of one residual from others. With N the nearest clean entries around entry t, t itself excluded,
and with A the second moments of the residuals in such windows,

    ``r̂_t = A_{tN} · (A_{NN} + νD)⁻¹ · r_N``,   D the diagonal of A_{NN}.

The sum ``x̂ + r̂`` is known as regression kriging [Hengl et al., 2007]. A is estimated from all pairs of clean entries of
the same image. An entry takes no part in its own prediction, so the error at clean entries is that at corrupted ones.
A is the same for a window turned by 180°, which halves what must be estimated.

Each class of pixels may have its own A, see :mod:`dop_lightning.engine.steps.clean_entries.orientation`. With n pixels
in class k, that of all pixels counts as :data:`PSEUDOCOUNT` further pixels, at the scale of the class:

    ``A_k ← (n·A_k + PSEUDOCOUNT·s_k·A) / (n + PSEUDOCOUNT)``,   ``s_k = tr A_k / tr A``.

On a CPU the systems are solved by ``foundation/native/krige.cpp``, where there is a compiler.

Shapes: C×H×W, an image; N entries of a window; K classes of pixels; P entries that are predicted.
"""

from collections.abc import Iterator
from ctypes import CDLL, c_float, c_int, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

from dop_lightning.foundation.native import library

NUGGET = 0.01
"""ν: the share of its variance that a residual has in common with no other."""

NEIGHBOURS = 20
"""Most entries that predict one: those with the largest covariance among the clean ones of the window."""

LEAST = 0.01
"""An entry of a smaller weight predicts nothing."""

PSEUDOCOUNT = 1000.0
"""Weight of the second moments of all pixels beside those of a class, in pixels."""

SMALLEST = 1e-6
"""Least eigenvalue of A relative to the largest. Means over different pairs may give an indefinite A."""

STRIP = 3 << 14
"""Entries of a strip of the image whose windows are in memory at a time."""

ENOUGH = 1 << 17
"""Pixels from which second moments are estimated: of larger images, strips at equal distances."""

CHUNK = 1 << 12
"""Linear systems that are solved at a time without the compiled kernel."""


def krige(residual: Tensor, clean: Tensor, at: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
    """Predict residuals from those of the clean entries around them.

    The window has 5×5 pixels, and 3×3 for more than three channels.

    Args:
        residual: r, ``(C, H, W)``; ignored where nothing is clean.
        clean: probability of each entry that it is clean, ``(C, H, W)``. It weights the moments, and reduces the
            correlation of an entry with its neighbours.
        at: bool, ``(C, H, W)``, the entries to predict; by default all.
        kinds: int64, ``(H, W)``, the class of each pixel; by default one class.

    Returns:
        r̂, ``(C, H, W)``, in units of r; 0 at other entries and where no clean entry is in the window.

    >>> stripes = torch.tensor([1.0, -1.0]).repeat(1, 16, 8)
    >>> clean = torch.ones_like(stripes)
    >>> clean[0, 5, 5] = 0
    >>> round(float(krige(stripes, clean)[0, 5, 5]), 1)
    -1.0
    """
    channels, height, width = residual.shape
    side = 5 if channels <= 3 else 3
    kinds = torch.zeros(height, width, dtype=torch.int64, device=residual.device) if kinds is None else kinds
    moments = _moments(residual, clean, side, kinds)
    found = torch.zeros_like(residual)
    if not bool(moments.any()):
        return found
    window = _Window.of(residual, clean, side)
    for c in range(channels):
        row, column = torch.ones_like(kinds).nonzero(as_tuple=True) if at is None else at[c].nonzero(as_tuple=True)
        kind = kinds[row, column]
        order = kind.argsort(stable=True)
        for k, each in enumerate(order.split(torch.bincount(kind, minlength=len(moments)).tolist())):
            if len(each):
                places = window.places(c, row[each], column[each])
                found[c, row[each], column[each]] = window.predict(moments[k], c, places)
    return found


def kriged(y: Tensor, estimate: Tensor, clean: Tensor, at: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
    """Return ``x̂ + r̂`` within the range of the clean entries, or of x̂ where that is larger: regression kriging.

    Args:
        y: the observation, ``(C, H, W)``; ignored where nothing is clean.
        estimate: x̂, ``(C, H, W)``.
        clean: see :func:`krige`.
        at: see :func:`krige`; elsewhere x̂ is returned.
        kinds: see :func:`krige`.
    """
    known = clean > 0
    if not bool(known.any()):
        return estimate
    low, high = y[known].aminmax()
    predicted = estimate + krige(y - estimate, clean, at, kinds)
    return predicted.clamp(torch.minimum(estimate, low), torch.maximum(estimate, high))


def _bordered(residual: Tensor, clean: Tensor, radius: int) -> Tensor:
    """``w∘r`` and w with a border of zeros, ``(2, C, H + 2R, W + 2R)``."""
    both = torch.stack([torch.where(clean > 0, clean * residual, 0), clean.to(residual.dtype)])
    return pad(both, [radius] * 4)


def _strips(residual: Tensor, clean: Tensor, side: int, kinds: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The windows of the pixels of each strip, ``(N, P)``, with their weights and the classes of their pixels."""
    channels, height, width = residual.shape
    radius = side // 2
    around = _bordered(residual, clean, radius)
    rows = max(1, STRIP // (channels * width))
    step = max(1, height * width // ENOUGH)
    for begin in range(0, height, step * rows):
        end = min(begin + rows, height)
        values, weights = unfold(around[:, :, begin : end + 2 * radius], side)
        yield values, weights, kinds[begin:end].flatten()


def _moments(residual: Tensor, clean: Tensor, side: int, kinds: Tensor) -> Tensor:
    """``A_k + νD``, ``(K, N, N)``: second moments of residuals in a window, positive definite; zeros without any."""
    size, number = residual.shape[0] * side**2, int(kinds.max()) + 1
    products, pairs = (residual.new_zeros(number, size, size) for _ in range(2))
    for values, weights, kind in _strips(residual, clean, side, kinds):
        if number == 1:
            products[0].addmm_(values, values.mT)
            pairs[0].addmm_(weights, weights.mT)
            continue
        order = kind.argsort(stable=True)
        counts = torch.bincount(kind, minlength=number).tolist()
        parts = (each[:, order].split(counts, dim=1) for each in (values, weights))
        for k, (value, weight) in enumerate(zip(*parts, strict=True)):
            products[k].addmm_(value, value.mT)
            pairs[k].addmm_(weight, weight.mT)
    turned = torch.arange(size, device="cpu").view(-1, side**2).flip(1).flatten()
    products, pairs = (each.cpu().double() for each in (products, pairs))  # Apple's GPUs have no float64
    products, pairs = (each + each[:, turned][:, :, turned] for each in (products, pairs))
    whole = products.sum(0) / pairs.sum(0).clamp_min(1)
    if not float(whole.diagonal().sum()) > 0:  # nothing is clean, or the estimate is exact
        return residual.new_zeros(number, size, size)
    moments = whole[None]
    if number > 1:
        spread = (products.diagonal(dim1=1, dim2=2).sum(1) / pairs.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1)) / (
            whole.diagonal().mean()
        )
        pooled = 2 * PSEUDOCOUNT * spread[:, None, None] * whole
        moments = (products + pooled) / (pairs + 2 * PSEUDOCOUNT)
    eigenvalues, vectors = torch.linalg.eigh((moments + moments.mT) / 2)
    least = (SMALLEST * eigenvalues[:, -1:]).clamp_min(1e-30)
    moments = vectors * torch.maximum(eigenvalues, least)[:, None] @ vectors.mT
    moments = moments + moments[:, turned][:, :, turned]  # but for rounding, twice the same
    moments = (moments + moments.mT) / 4
    return (moments + NUGGET * torch.diag_embed(moments.diagonal(dim1=1, dim2=2))).to(residual)


class _Window(NamedTuple):
    """An image, as its entries are predicted from.

    Attributes:
        around: ``w∘r`` and w with a border of zeros, ``(2, C, H + 2R, W + 2R)``.
        side: 2R + 1.
    """

    around: Tensor
    side: int

    @classmethod
    def of(cls, residual: Tensor, clean: Tensor, side: int) -> "_Window":
        return cls(_bordered(residual, clean, side // 2).contiguous(), side)

    def places(self, channel: int, rows: Tensor, columns: Tensor) -> Tensor:
        """The entries' positions in :attr:`around`, flat."""
        _, height, width = self.around.shape[1:]
        return (channel * height + rows + self.side // 2) * width + columns + self.side // 2

    def offsets(self, channel: int, entries: Tensor) -> Tensor:
        """The positions of entries of the window relative to an entry of a channel that is predicted."""
        _, height, width = self.around.shape[1:]
        c, place = entries // self.side**2, entries % self.side**2
        down, right = place // self.side - self.side // 2, place % self.side - self.side // 2
        return ((c - channel) * height + down) * width + right

    def predict(self, moments: Tensor, channel: int, places: Tensor) -> Tensor:
        """Return r̂ of entries of one class and one channel, ``(P,)``.

        Args:
            moments: of the class, ``(N, N)``.
            channel: of the entries.
            places: as :meth:`places` gives them.
        """
        target = channel * self.side**2 + self.side**2 // 2
        prediction = moments[target].clone()
        prediction[target] = 0
        near = prediction.abs().argsort(descending=True, stable=True)
        near = near[near != target]
        arguments = (self.offsets(channel, near), moments[near][:, near].contiguous(), prediction[near], places)
        kernels = library() if self.around.device.type == "cpu" and self.around.dtype == torch.float32 else None
        return self._solved(*arguments) if kernels is None else self._compiled(kernels, *arguments)

    def _compiled(self, kernels: CDLL, offsets: Tensor, moments: Tensor, prediction: Tensor, places: Tensor) -> Tensor:
        found = torch.empty(len(places), dtype=torch.float32, device="cpu")
        pointers = [
            c_void_p(each.data_ptr()) for each in (self.around[0], self.around[1], offsets, moments, prediction)
        ]
        kernels.krige(
            *pointers,
            c_int64(len(offsets)),
            c_int(NEIGHBOURS),
            c_float(LEAST),
            c_void_p(places.data_ptr()),
            c_int64(len(places)),
            c_void_p(found.data_ptr()),
            c_int(torch.get_num_threads()),
        )
        return found

    def _solved(self, offsets: Tensor, moments: Tensor, prediction: Tensor, places: Tensor) -> Tensor:
        values, weights = self.around[0].flatten(), self.around[1].flatten()
        most, found = min(NEIGHBOURS, len(offsets)), []
        for part in places.split(CHUNK):
            at = part[:, None] + offsets
            present = weights[at] > LEAST
            rank = torch.where(present, present.cumsum(1), len(offsets) + 1)
            near = rank.argsort(dim=1, stable=True)[:, :most]
            value, weight = (
                torch.where(rank.gather(1, near) <= most, each[at.gather(1, near)], 0) for each in (values, weights)
            )
            systems = moments[near.unsqueeze(2), near.unsqueeze(1)] * weight.unsqueeze(2) * weight.unsqueeze(1)
            systems.diagonal(dim1=1, dim2=2).add_((1 - weight) * moments.diagonal()[near])
            factors, _ = torch.linalg.cholesky_ex(systems)
            solved = torch.cholesky_solve((prediction[near] * weight).unsqueeze(2), factors)
            found.append((solved.squeeze(2) * value).sum(1))
        return torch.cat(found)
