"""Scores of K recoveries: all functions return ``(K,)`` in float64, one number per problem.

The values of a recovery never raise an error. Undefined scores (of a diverged problem, a truth of 0, or an image
smaller than a window) are NaN, and do not affect other problems.

Shapes: K problems; ``*n`` is the shape of a signal, ``*m`` that of an observation, C H W an image, n m a matrix.
"""

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from dop_lightning.foundation.checks import not_negative, positive, share

AT_ONCE = 2**20
"""Number of entries of a corruption that are processed at once."""

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11  # truncation at 3.5 sigma, as in torchmetrics and scikit-image
SSIM_STRIP = 2**16  # pixels processed at once: they fit in the cache, and bound the memory for large images


LARGE_SIDE = 512
"""Minimum number of rows and columns at which the rank is computed from leading singular values, if possible."""

MIN_TOLERANCE = 1e-3
"""Minimum relative tolerance for which single precision suffices for that."""

FIRST_WIDTH = 32

ROUNDING = 1e-10
"""Fraction of the energy of a matrix that may be lost to rounding in float32."""


def psnr(estimate: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio, ``10·log10(data_range² / mean((X̂ − X*)²))`` in dB; inf if both are equal.

    Args:
        estimate: X̂, ``(K, *n)``, not clamped to the range.
        truth: X*, ``(K, *n)``.
        data_range: width of the range of the signal, above 0; 1 for images.

    Returns:
        ``(K,)``.

    Raises:
        ValueError: shapes differ, or ``data_range`` is not above 0.

    >>> psnr(torch.full((2, 1, 4, 4), 0.1), torch.zeros(2, 1, 4, 4), data_range=1.0)
    tensor([20.0000, 20.0000], dtype=torch.float64)
    """
    positive("data_range", data_range)
    x, reference = _check_pair(estimate, truth)
    return peak_signal_noise_ratio(
        x.flatten(1), reference.flatten(1), data_range=float(data_range), reduction="none", dim=1
    )


def ssim(estimate: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Structural similarity with Gaussian weights, σ = 1.5, averaged over channels and pixels (Wang et al., 2004).

    Pixels whose 11×11 window extends beyond the border are excluded. This equals ``structural_similarity`` of
    scikit-image with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``. torchmetrics reflects the image
    at its border and includes these pixels. It also uses a convolution with 121 weights, which in float64 on a CPU is
    slower than several iterations of the network; this function filters along rows and columns separately.

    Args:
        estimate: X̂, ``(K, C, H, W)``.
        truth: X*, ``(K, C, H, W)``.
        data_range: width of the range of the signal, above 0.

    Returns:
        ``(K,)``; NaN for images with a side below 11, which contain no window.

    Raises:
        ValueError: inputs do not have four dimensions, shapes differ, or ``data_range`` is not above 0.
    """
    positive("data_range", data_range)
    x, reference = _check_pair(estimate, truth)
    if x.ndim != 4:
        raise ValueError(f"estimate must have the shape (K, C, H, W), got {tuple(x.shape)}")
    if min(x.shape[-2:]) < SSIM_WINDOW:
        return x.new_full((len(x),), torch.nan)
    border = SSIM_WINDOW // 2
    height, width = x.shape[-2:]
    stride = max(SSIM_WINDOW, SSIM_STRIP // width)
    total = x.new_zeros(len(x))
    for top in range(0, height - 2 * border, stride):  # rows of windows, which extend 2·border rows further
        strip = slice(top, min(top + stride, height - 2 * border) + 2 * border)
        places = _similarities(x[..., strip, :], reference[..., strip, :], data_range)
        total += places.flatten(1).sum(dim=1)
    return total / (x.shape[1] * (height - 2 * border) * (width - 2 * border))


def _similarities(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """Return the SSIM of all windows inside an image, ``(K, C, H−10, W−10)`` for ``(K, C, H, W)`` (Eq. 13 there)."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = (_windowed(x * x) - mean_x**2).clamp_(min=0) + (_windowed(y * y) - mean_y**2).clamp_(min=0)
    covariance = _windowed(x * y) - mean_x * mean_y
    lower = (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / lower


def _windowed(x: Tensor) -> Tensor:
    """Return means over Gaussian windows, computed along rows and then along columns."""
    bell = [math.exp(-0.5 * ((k - SSIM_WINDOW // 2) / SSIM_SIGMA) ** 2) for k in range(SSIM_WINDOW)]
    weights = [height / sum(bell) for height in bell]
    for dim in (-1, -2):
        length = x.shape[dim] - SSIM_WINDOW + 1
        means = x.narrow(dim, 0, length) * weights[0]
        for k in range(1, SSIM_WINDOW):
            means.add_(x.narrow(dim, k, length), alpha=weights[k])
        x = means
    return x


def relative_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Relative error ``‖X̂ − X*‖_F / ‖X*‖_F`` of section 4.1 (success is below 0.1); NaN if the truth is 0.

    Args:
        estimate: X̂, ``(K, *n)``.
        truth: X*, ``(K, *n)``.

    Returns:
        ``(K,)``.

    Raises:
        ValueError: shapes differ.

    >>> relative_error(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor([1., nan], dtype=torch.float64)
    """
    x, reference = _check_pair(estimate, truth)
    scale = torch.linalg.vector_norm(reference.flatten(1), dim=1)
    error = torch.linalg.vector_norm((x - reference).flatten(1), dim=1)
    return torch.where(scale > 0, error / scale, torch.nan)


def corruption_density(corruption: Tensor, threshold: float | Tensor, mask: Tensor | None = None) -> Tensor:
    """Fraction of observed entries with ``|s| > threshold``.

    Args:
        corruption: ŝ or s*, ``(K, *m)``.
        threshold: number ≥ 0, or ``(K,)`` with one per problem.
        mask: boolean ``(K, *m)``, true where observed; ``None`` if all entries were observed.

    Returns:
        ``(K,)`` in [0, 1]; NaN if no entry was observed, or if an observed entry of ``corruption`` is NaN.

    Raises:
        ValueError: a shape is wrong, or ``threshold`` is negative.

    >>> corruption_density(torch.tensor([[0.0, 0.5, -2.0, 0.01]]), threshold=0.1)
    tensor([0.5000], dtype=torch.float64)
    """
    _require_entries("corruption", corruption)
    if mask is not None:
        _observed(corruption, mask)
    above = known = undefined = torch.zeros(())
    for begin in range(0, corruption[0].numel(), AT_ONCE):  # avoids a copy of a large corruption
        part = slice(begin, begin + AT_ONCE)
        s = _to_float64("corruption", corruption.flatten(1)[:, part])
        observed = _observed(s, None if mask is None else mask.flatten(1)[:, part])
        above = above + _count(_support(s, threshold) & observed)
        known = known + _count(observed)
        undefined = undefined + _has_nan(s, observed)
    return torch.where(undefined > 0, torch.nan, above / known)


def support_scores(
    corruption: Tensor, true_corruption: Tensor, threshold: float | Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Precision and recall of the support of ŝ against that of s*, over observed entries.

    Both supports consist of the entries with ``|s| > threshold``, so that changes by noise below the threshold do not
    count as corruption. With a threshold of 0, they are the exact supports.

    Args:
        corruption: ŝ, ``(K, *m)``.
        true_corruption: s*, ``(K, *m)``.
        threshold: number ≥ 0, or ``(K,)`` with one per problem.
        mask: boolean ``(K, *m)``, true where observed; ``None`` if all entries were observed.

    Returns:
        ``precision``, the fraction of the support of ŝ that is in that of s*, and ``recall``, the fraction of the
        support of s* that is in that of ŝ, both ``(K,)``; NaN if the support in the denominator is empty, or if an
        observed entry of ŝ is NaN.

    Raises:
        ValueError: a shape is wrong, or ``threshold`` is negative.

    >>> found, true = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> support_scores(found, true, threshold=0.1)
    (tensor([0.5000], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    # the samplewise scores of torchmetrics squeeze K = 1, and return 0 or 1 for an empty denominator
    s, s_true = _check_pair(corruption, true_corruption, "corruption", "true_corruption")
    observed = _observed(s, mask)
    found, true = _support(s, threshold) & observed, _support(s_true, threshold) & observed
    hits = torch.where(_has_nan(s, observed), torch.nan, _count(found & true))
    return hits / _count(found), hits / _count(true)


def numerical_rank(X: Tensor, tolerance: float = 1e-2) -> Tensor:
    """Number of singular values above ``tolerance`` times the largest; 0 for the zero matrix.

    Args:
        X: matrices, ``(K, n, m)``.
        tolerance: relative tolerance, in [0, 1].

    Returns:
        ``(K,)``; NaN for a matrix with a non-finite entry.

    Raises:
        ValueError: ``X`` does not have three dimensions, or ``tolerance`` is out of range.

    >>> numerical_rank(torch.stack([torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)]))
    tensor([3., 1., 0.], dtype=torch.float64)
    """
    share("tolerance", tolerance)
    if X.ndim == 3 and min(X.shape[1:]) >= LARGE_SIDE and tolerance >= MIN_TOLERANCE:
        device = "cpu" if X.device.type == "mps" else X.device
        real = X.detach().to(device, X.dtype if X.dtype in (torch.float32, torch.float64) else torch.float32)
        ranks = [_rank_of_large(matrix, tolerance) for matrix in real]
        return torch.tensor(ranks, dtype=torch.float64, device=device)
    x = _to_float64("X", X)
    if x.ndim != 3:
        raise ValueError(f"X must have the shape (K, n, m), got {tuple(x.shape)}")
    finite = torch.isfinite(x).all(dim=(1, 2))
    # the solver raises an error for the whole batch if one matrix is not finite
    values = torch.linalg.svdvals(torch.where(finite[:, None, None], x, 0.0))  # (K, min(n, m)), descending
    return torch.where(finite, _count(values > tolerance * values[:, :1]), torch.nan)


def _rank_of_large(M: Tensor, tolerance: float) -> float:
    """Return the numerical rank of one matrix, from its leading singular values if they determine it.

    For an orthonormal basis Q, ``B = QᵀM`` and ``e² = ‖M‖_F² − ‖B‖_F²``, the singular values satisfy
    ``σᵢ(B) ≤ σᵢ(M) ≤ √(σᵢ(B)² + e²)``. A few columns of Q suffice if e is small.
    """
    if not all(bool(torch.isfinite(extreme)) for extreme in M.aminmax()):
        return float("nan")
    size = _norm(M)
    if size == 0:
        return 0.0
    if not 1e-15 < size < 1e15:  # squares must neither underflow nor overflow
        M = M / M.abs().amax()
        size = _norm(M)
    generator = torch.Generator().manual_seed(0)
    width = FIRST_WIDTH
    while 4 * width <= min(M.shape):
        Q = torch.linalg.qr(M @ torch.randn(M.shape[1], width, generator=generator).to(M))[0]
        Q = torch.linalg.qr(M @ (M.mT @ Q))[0]
        values = torch.linalg.svdvals(Q.mT @ M).double().tolist()
        rest = max(size**2 - sum(value**2 for value in values), ROUNDING * size**2)
        count = sum(value > tolerance * (values[0] ** 2 + rest) ** 0.5 for value in values)
        largest_left = ((values[count] if count < width else 0.0) ** 2 + rest) ** 0.5
        if largest_left < tolerance * values[0]:
            return float(count)
        width *= 2
    values = torch.linalg.svdvals(M)
    return float((values > tolerance * values[0]).sum())


def _norm(M: Tensor) -> float:
    """Return ``‖M‖_F``, summed in float64 without a float64 copy of M."""
    strips = M.split(max(1, AT_ONCE // M.shape[1]))
    norms = [torch.linalg.vector_norm(strip, dtype=torch.float64) for strip in strips]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def _to_float64(name: str, tensor: Tensor) -> Tensor:
    """Return a detached float64 tensor, so that scores do not depend on the dtype of the method."""
    _require_entries(name, tensor)
    # MPS devices do not support float64
    return (tensor.detach().cpu() if tensor.device.type == "mps" else tensor.detach()).double()


def _require_entries(name: str, tensor: Tensor) -> None:
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise ValueError(f"{name} must have the shape (K, ...) with at least one entry, got {tuple(tensor.shape)}")


def _check_pair(left: Tensor, right: Tensor, name: str = "estimate", other: str = "truth") -> tuple[Tensor, Tensor]:
    """Return two tensors in float64 after checking that their shapes are equal, since they must not be broadcast."""
    if left.shape != right.shape:
        raise ValueError(f"{name} must have the shape of {other}, {tuple(right.shape)}, got {tuple(left.shape)}")
    x = _to_float64(name, left)
    return x, _to_float64(other, right).to(x.device)


def _observed(s: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones_like(s, dtype=torch.bool)
    if mask.shape != s.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean of shape {tuple(s.shape)}, got {mask.dtype} of {tuple(mask.shape)}")
    return mask.to(s.device)


def _support(s: Tensor, threshold: float | Tensor) -> Tensor:
    """Return ``|s| > threshold``. One threshold per problem is broadcast over its entries."""
    if not isinstance(threshold, Tensor):
        return s.abs() > not_negative("threshold", threshold)
    if threshold.shape != s.shape[:1] or not bool((threshold >= 0).all()):
        raise ValueError(f"threshold must be at least 0 and of shape ({len(s)},), got {threshold}")
    return s.abs() > threshold.to(s).view(-1, *[1] * (s.ndim - 1))


def _has_nan(s: Tensor, observed: Tensor) -> Tensor:
    """Return ``(K,)``, true if an observed entry is NaN, which comparisons would treat as "not above"."""
    return (s.isnan() & observed).flatten(1).any(dim=1)


def _count(entries: Tensor) -> Tensor:
    """Return the number of true entries of each problem, ``(K,)`` in float64, so that 0 / 0 is NaN."""
    return entries.flatten(1).sum(dim=1, dtype=torch.float64)
