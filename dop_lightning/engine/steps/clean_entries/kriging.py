r"""Kriging: predict the residual of an estimate at an entry from the residuals around it.

An estimate x̂ of an image, a local mean or the output of a network, leaves residuals ``r = y − x̂`` that are correlated
between neighbouring pixels and, more strongly, between the channels of a pixel. Simple kriging [Matheron, 1963] is the
best linear prediction of one residual from others. With N the nearest clean entries around entry t, t itself excluded,
and with A the second moments of the residuals in such windows,

    ``r̂_t = A_{tN} · (A_{NN} + νD)⁻¹ · r_N``,   D the diagonal of A_{NN}.

The sum ``x̂ + r̂`` is known as regression kriging [Hengl et al., 2007]. A is estimated from all pairs of clean entries of
the same image. The prediction of an entry does not use the entry, so the error at clean entries estimates the error at
corrupted ones. A is assumed to be invariant under a rotation of the window by 180°, which halves the number of
parameters.

Each class of pixels may have a separate A, see :mod:`dop_lightning.engine.steps.clean_entries.orientation`. With n
pixels in class k, A_k is shrunk toward the A of all pixels, which is scaled to the class and weighted as
:data:`PSEUDOCOUNT` additional pixels:

    ``A_k ← (n·A_k + PSEUDOCOUNT·s_k·A) / (n + PSEUDOCOUNT)``,   ``s_k = tr A_k / tr A``.

On a CPU, ``foundation/native/krige.cpp`` solves the systems if a compiler is available.

Shapes: C×H×W, an image; N entries of a window; K classes of pixels; P predicted entries.
"""

from collections.abc import Iterator
from ctypes import CDLL, c_float, c_int, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

from dop_lightning.engine.steps.clean_entries.compiled import kernels_for
from dop_lightning.engine.steps.clean_entries.indices import indices
from dop_lightning.engine.steps.clean_entries.sorting import few_order

NUGGET = 0.01
"""ν: fraction of the variance of a residual that is uncorrelated with all others."""

NEIGHBOURS = 20
"""Maximum number of predictors of an entry: the clean entries of the window with the largest covariance."""

MIN_WEIGHT = 0.01
"""Minimum weight of an entry that is used as a predictor."""

PSEUDOCOUNT = 1000.0
"""Weight of the second moments of all pixels in those of a class, in pixels."""

SMALLEST = 1e-6
"""Lower bound of the eigenvalues of A relative to the largest. Averaging over different pairs can give an indefinite
A."""

STRIP = 3 << 14
"""Number of entries in a strip of the image. The windows of one strip are in memory at a time."""

MAX_MOMENT_PIXELS = 1 << 17
"""Number of pixels used to estimate second moments; larger images are sampled in evenly spaced strips."""

CACHED = 1 << 16
"""Number of floats in a strip and its weights, which must fit in the cache while its entries are predicted."""

FEW_KEYS = 1 << 15
"""Maximum number of pairs of a strip and a class."""

MAX_JOINT_CHANNELS = 3
"""Number of channels that are predicted together; the systems of more channels need too much memory."""

CHUNK = 1 << 12
"""Number of linear systems that are solved at a time without the compiled kernel."""


def krige(residual: Tensor, clean: Tensor, at: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
    """Predict residuals from those of the clean entries around them.

    The window has 5×5 pixels, or 3×3 pixels for more than three channels.

    Args:
        residual: r, ``(C, H, W)``; ignored where ``clean`` is 0.
        clean: probability that each entry is clean, ``(C, H, W)``. It weights the moments, and reduces the correlation
            of an entry with its neighbours.
        at: bool, ``(C, H, W)``, the entries to predict; by default all.
        kinds: int64, ``(H, W)``, the class of each pixel; by default one class.

    Returns:
        r̂, ``(C, H, W)``, in units of r; 0 at entries that are not predicted or have no clean entry in their window.

    >>> stripes = torch.tensor([1.0, -1.0]).repeat(1, 16, 8)
    >>> clean = torch.ones_like(stripes)
    >>> clean[0, 5, 5] = 0
    >>> round(float(krige(stripes, clean)[0, 5, 5]), 1)
    -1.0
    """
    channels, height, width = residual.shape
    side = 5 if channels <= 3 else 3
    kinds = torch.zeros(height, width, dtype=torch.int64, device=residual.device) if kinds is None else kinds
    window = _Window.of(residual, clean, side)
    moments = _second_moments(window, kinds)
    found = residual.new_zeros(residual.shape)
    if not bool(moments.any()):
        return found
    entries = torch.arange(found.numel(), device=found.device) if at is None else indices(at)
    for first in range(0, channels, MAX_JOINT_CHANNELS):
        part = entries
        if channels > MAX_JOINT_CHANNELS:
            part = entries[
                (entries >= first * kinds.numel()) & (entries < (first + MAX_JOINT_CHANNELS) * kinds.numel())
            ]
        if len(part):
            found.view(-1)[part] = window.predict(moments, kinds, part, first)
    return found


def kriged(y: Tensor, estimate: Tensor, clean: Tensor, at: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
    """Return ``x̂ + r̂`` (regression kriging), clamped to the range of the clean entries, extended to include x̂.

    Args:
        y: the observation, ``(C, H, W)``; ignored where ``clean`` is 0.
        estimate: x̂, ``(C, H, W)``.
        clean: see :func:`krige`.
        at: see :func:`krige`; other entries keep x̂.
        kinds: see :func:`krige`.
    """
    known = clean > 0
    if not bool(known.any()):
        return estimate
    low, high = torch.where(known, y, torch.inf).min(), torch.where(known, y, -torch.inf).max()
    predicted = estimate + krige(y - estimate, clean, at, kinds)
    return predicted.clamp(torch.minimum(estimate, low), torch.maximum(estimate, high))


def _pad_border(residual: Tensor, clean: Tensor, radius: int) -> Tensor:
    """Return ``w∘r`` and w with a border of zeros, ``(2, C, H + 2R, W + 2R)``."""
    both = torch.stack([torch.where(clean > 0, clean * residual, 0), clean.to(residual.dtype)])
    return pad(both, [radius] * 4)


def _window_strips(window: "_Window", kinds: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the windows of the pixels of each strip, ``(N, P)``, their weights, and the classes of the pixels."""
    for begin, end in _strip_rows(window, kinds):
        values, weights = unfold(window.around[:, :, begin : end + window.side - 1], window.side)
        yield values, weights, kinds[begin:end].flatten()


def _strip_rows(window: "_Window", kinds: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the first row and the row after the last one of each strip that is used to estimate second moments."""
    height, width = kinds.shape
    rows = max(1, STRIP // (window.around.shape[1] * width))
    step = max(1, height * width // MAX_MOMENT_PIXELS)
    for begin in range(0, height, step * rows):
        yield begin, min(begin + rows, height)


def _pair_sums(window: "_Window", kinds: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the sums of products over all pairs in the windows of each class, and of their weights, ``(K, N, N)``.

    Both are float64.
    """
    size = window.around.shape[1] * window.side**2
    kernels = window.kernels
    if kernels is not None:
        rows = torch.cat([torch.arange(*each, device="cpu") for each in _strip_rows(window, kinds)])
        return window.sums(kernels, kinds, rows, number)
    products, pairs = (window.around.new_zeros(number, size, size) for _ in range(2))
    for values, weights, kind in _window_strips(window, kinds):
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
    products, pairs = (each.cpu().double() for each in (products, pairs))  # Apple's GPUs have no float64
    return products, pairs


def _second_moments(window: "_Window", kinds: Tensor) -> Tensor:
    """Return ``A_k + νD``, the positive definite second moments of residuals in a window, ``(K, N, N)``.

    They are 0 if no entry is clean or all residuals of clean entries are 0.
    """
    side, number = window.side, int(kinds.max()) + 1
    products, pairs = _pair_sums(window, kinds, number)
    size = products.shape[1]
    turned = torch.arange(size, device="cpu").view(-1, side**2).flip(1).flatten()
    products, pairs = (each + each[:, turned][:, :, turned] for each in (products, pairs))
    whole = products.sum(0) / pairs.sum(0).clamp_min(1)
    if not float(whole.diagonal().sum()) > 0:  # no entry is clean, or the estimate is exact
        return window.around.new_zeros(number, size, size)
    moments = whole[None]
    if number > 1:
        spread = (products.diagonal(dim1=1, dim2=2).sum(1) / pairs.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1)) / (
            whole.diagonal().mean()
        )
        pooled = 2 * PSEUDOCOUNT * spread[:, None, None] * whole
        moments = (products + pooled) / (pairs + 2 * PSEUDOCOUNT)
    moments = _make_definite((moments + moments.mT) / 2)
    moments = moments + moments[:, turned][:, :, turned]  # equal up to rounding
    moments = (moments + moments.mT) / 4
    return (moments + NUGGET * torch.diag_embed(moments.diagonal(dim1=1, dim2=2))).to(window.around)


def _make_definite(moments: Tensor) -> Tensor:
    """Raise the eigenvalues of symmetric matrices ``(K, N, N)`` to at least :data:`SMALLEST` times the largest."""
    bound = moments.abs().sum(2).amax(1)  # upper bound of the eigenvalues
    shift = (SMALLEST * bound).clamp_min(1e-30)
    _, failed = torch.linalg.cholesky_ex(moments - torch.diag_embed(shift[:, None].expand(moments.shape[:2])))
    few = failed.nonzero().squeeze(1)
    if not len(few):  # avoids eigendecompositions, which are many times slower
        return moments
    eigenvalues, vectors = torch.linalg.eigh(moments[few])
    least = (SMALLEST * eigenvalues[:, -1:]).clamp_min(1e-30)
    return moments.index_copy(0, few, vectors * torch.maximum(eigenvalues, least)[:, None] @ vectors.mT)


def _split_by_class(pixels: Tensor, kinds: Tensor, number: int) -> tuple[Tensor, ...]:
    """Split pixels, given as indices into the flat image, by class."""
    kind = kinds.flatten()[pixels]
    return pixels[few_order(kind, number)].split(torch.bincount(kind, minlength=number).tolist())


class _Window(NamedTuple):
    """A padded image and the size of the prediction window.

    Attributes:
        around: ``w∘r`` and w with a border of zeros, ``(2, C, H + 2R, W + 2R)``.
        side: side of the window, 2R + 1 pixels.
    """

    around: Tensor
    side: int

    @classmethod
    def of(cls, residual: Tensor, clean: Tensor, side: int) -> "_Window":
        return cls(_pad_border(residual, clean, side // 2).contiguous(), side)

    def places(self, channel: Tensor | int, pixels: Tensor) -> Tensor:
        """Return the flat positions of entries in :attr:`around`; ``pixels`` are indices into the flat image."""
        _, height, width = self.around.shape[1:]
        row, column = pixels // (width - self.side + 1), pixels % (width - self.side + 1)
        return (channel * height + row + self.side // 2) * width + column + self.side // 2

    def offsets(self, channel: Tensor | int, entries: Tensor) -> Tensor:
        """Return the flat positions of entries of the window relative to a predicted entry of ``channel``."""
        _, height, width = self.around.shape[1:]
        c, place = entries // self.side**2, entries % self.side**2
        down, right = place // self.side - self.side // 2, place % self.side - self.side // 2
        return ((c - channel) * height + down) * width + right

    @property
    def kernels(self) -> CDLL | None:
        """Compiled kernels, or ``None`` if they cannot be used."""
        return kernels_for(self.around)

    def sums(self, kernels: CDLL, kinds: Tensor, rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Compute :func:`_pair_sums` over some rows of the image by the compiled kernels."""
        width = kinds.shape[1]
        pixels = (rows[:, None] * width + torch.arange(width, device="cpu")).flatten()
        parts = _split_by_class(pixels, kinds, number)
        begins = torch.tensor([0, *(len(part) for part in parts)], device="cpu").cumsum(0)
        pixels = torch.cat(parts)
        places = self.places(0, pixels)
        offsets = self.offsets(0, torch.arange(self.around.shape[1] * self.side**2, device="cpu"))
        found = torch.zeros(2, number, len(offsets), len(offsets), dtype=torch.float64, device="cpu")
        for values, sums in zip(self.around, found, strict=True):
            kernels.add_products(
                c_void_p(values.data_ptr()),
                c_void_p(offsets.data_ptr()),
                c_int64(len(offsets)),
                c_void_p(places.data_ptr()),
                c_void_p(begins.data_ptr()),
                c_int64(number),
                c_void_p(sums.data_ptr()),
                c_int(torch.get_num_threads()),
            )
        return found[0], found[1]

    def predict(self, moments: Tensor, kinds: Tensor, entries: Tensor, first: int = 0) -> Tensor:
        """Return r̂ of some entries, ``(P,)``.

        Args:
            moments: second moments of each class, ``(K, N, N)``.
            kinds: class of each pixel, ``(H, W)``.
            entries: indices into the flat image ``(C, H, W)``, at least one, of at most :data:`MAX_JOINT_CHANNELS`
                channels.
            first: the first of these channels.
        """
        number = len(moments)
        channels = min(MAX_JOINT_CHANNELS, self.around.shape[1] - first)
        channel, pixels = entries // kinds.numel(), entries % kinds.numel()
        which = (channel - first) * number + kinds.flatten()[pixels]
        systems = _Systems.of(self, moments, range(first, first + channels))
        places = self.places(channel, pixels)
        if self.kernels is None:
            order = few_order(which, channels * number)
            parts = places[order].split(torch.bincount(which, minlength=channels * number).tolist())
            solved = torch.cat([self._solve_systems(systems, i, part) for i, part in enumerate(parts)])
        else:  # strip by strip, so that the windows stay in the cache
            strips = pixels // (kinds.shape[1] * max(1, CACHED // self.around[..., 0, :].numel()))
            most = FEW_KEYS // (channels * number)
            strips = strips // (int(strips.max()) // most + 1)
            keys = strips * (channels * number) + which
            order = few_order(keys, FEW_KEYS)
            solved = self._solve_compiled(self.kernels, systems, which[order], places[order])
        return torch.empty_like(solved).index_copy_(0, order, solved)

    def _solve_compiled(self, kernels: CDLL, systems: "_Systems", which: Tensor, places: Tensor) -> Tensor:
        found = torch.empty(len(places), dtype=torch.float32, device="cpu")
        begins = torch.cat([which.new_zeros(1), (which[1:] != which[:-1]).nonzero()[:, 0] + 1])
        chosen = which[begins].contiguous()
        begins = torch.cat([begins, begins.new_full((1,), len(places))])
        arrays = (self.around[0], self.around[1], systems.offsets, systems.moments, systems.predictions)
        kernels.krige(
            *(c_void_p(each.data_ptr()) for each in arrays),
            c_int64(systems.offsets.shape[1]),
            c_int(NEIGHBOURS),
            c_float(MIN_WEIGHT),
            c_void_p(chosen.data_ptr()),
            c_void_p(begins.data_ptr()),
            c_int64(len(chosen)),
            c_void_p(places.data_ptr()),
            c_void_p(found.data_ptr()),
            c_int(torch.get_num_threads()),
        )
        return found

    def _solve_systems(self, systems: "_Systems", which: int, places: Tensor) -> Tensor:
        offsets, moments, prediction = (each[which] for each in systems)
        values, weights = self.around[0].flatten(), self.around[1].flatten()
        most, found = min(NEIGHBOURS, len(offsets)), []
        for part in places.split(CHUNK):
            at = part[:, None] + offsets
            present = weights[at] > MIN_WEIGHT
            rank = torch.where(present, present.cumsum(1), len(offsets) + 1)
            near = rank.argsort(dim=1, stable=True)[:, :most]
            value, weight = (
                torch.where(rank.gather(1, near) <= most, each[at.gather(1, near)], 0) for each in (values, weights)
            )
            matrices = moments[near.unsqueeze(2), near.unsqueeze(1)] * weight.unsqueeze(2) * weight.unsqueeze(1)
            matrices.diagonal(dim1=1, dim2=2).add_((1 - weight) * moments.diagonal()[near])
            factors, _ = torch.linalg.cholesky_ex(matrices)
            solved = torch.cholesky_solve((prediction[near] * weight).unsqueeze(2), factors)
            found.append((solved.squeeze(2) * value).sum(1))
        return torch.cat(found) if found else values[:0]


class _Systems(NamedTuple):
    """Predictors for each channel and class, ``(C·K, …)``, by decreasing covariance.

    Attributes:
        offsets: flat offsets of the predictors from the predicted entry, int64, ``(C·K, N − 1)``.
        moments: second moments of the predictors, ``(C·K, N − 1, N − 1)``.
        predictions: second moments of the predictors with the predicted entry, ``(C·K, N − 1)``.
    """

    offsets: Tensor
    moments: Tensor
    predictions: Tensor

    @classmethod
    def of(cls, window: _Window, moments: Tensor, channels: range) -> "_Systems":
        area, found = window.side**2, []
        for c in channels:
            target = c * area + area // 2
            covariances = moments[:, target].clone()
            strength = covariances.abs()
            strength[:, target] = -1  # the target comes last and is dropped
            near = strength.argsort(dim=1, descending=True, stable=True)[:, :-1]
            rows = moments.gather(1, near[:, :, None].expand(-1, -1, moments.shape[2]))
            chosen = rows.gather(2, near[:, None].expand(-1, near.shape[1], -1))
            found.append((window.offsets(c, near), chosen, covariances.gather(1, near)))
        return cls(*(torch.cat(each).contiguous() for each in zip(*found, strict=True)))
