"""Scores of K recoveries at once: every function returns ``(K,)``, one number a problem, in float64.

Nothing raises because of what a recovery holds: a score that is not defined (of a diverged problem, of a truth that is
0, of an image smaller than a window) is NaN, and the other problems keep theirs.

Shapes: K problems, ``*n`` the shape of a signal, ``*m`` that of an observation, C H W an image, n m a matrix.
"""

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from dop_lightning.foundation.checks import not_negative, positive, share

AT_ONCE = 2**20
"""Entries of a corruption that are counted at once."""

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11  # what truncation at 3.5 sigma makes of it, in torchmetrics as in scikit-image
SSIM_STRIP = 2**16  # pixels whose windows are looked at together: they lie in the cache, and large images need no more


LARGE_SIDE = 512
"""Rows and columns from which the rank follows from leading singular values, if they decide."""

LEAST_TOLERANCE = 1e-3
"""Relative tolerance from which single precision is enough for that."""

FIRST_WIDTH = 32

ROUNDING = 1e-10
"""Share of the energy of a matrix that may be lost to rounding in float32."""


def psnr(estimate: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio, ``10·log10(data_range² / mean((X̂ − X*)²))`` in dB; inf where they are equal.

    Args:
        estimate: X̂, ``(K, *n)``. It is not clamped to the range.
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
    x, reference = _pair(estimate, truth)
    return peak_signal_noise_ratio(
        x.flatten(1), reference.flatten(1), data_range=float(data_range), reduction="none", dim=1
    )


def ssim(estimate: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Structural similarity with Gaussian weights, σ = 1.5, averaged over channels and places (Wang et al., 2004).

    Places whose 11×11 window reaches over the border do not count. That is scikit-image's ``structural_similarity``
    with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``. torchmetrics reflects the image at its
    border and counts them, and takes a convolution of 121 numbers a place, which in float64 on a CPU is slower than a
    few iterations of the network; here rows come before columns.

    Args:
        estimate: X̂, ``(K, C, H, W)``.
        truth: X*, ``(K, C, H, W)``.
        data_range: width of the range of the signal, above 0.

    Returns:
        ``(K,)``; NaN for images with a side below 11, on which no window fits.

    Raises:
        ValueError: not four dimensions, shapes differ, or ``data_range`` is not above 0.
    """
    positive("data_range", data_range)
    x, reference = _pair(estimate, truth)
    if x.ndim != 4:
        raise ValueError(f"estimate must have the shape (K, C, H, W), got {tuple(x.shape)}")
    if min(x.shape[-2:]) < SSIM_WINDOW:
        return x.new_full((len(x),), torch.nan)
    border = SSIM_WINDOW // 2
    height, width = x.shape[-2:]
    stride = max(SSIM_WINDOW, SSIM_STRIP // width)
    total = x.new_zeros(len(x))
    for top in range(0, height - 2 * border, stride):  # rows of places; their windows reach 2·border rows further
        strip = slice(top, min(top + stride, height - 2 * border) + 2 * border)
        places = _similarities(x[..., strip, :], reference[..., strip, :], data_range)
        total += places.flatten(1).sum(dim=1)
    return total / (x.shape[1] * (height - 2 * border) * (width - 2 * border))


def _similarities(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """SSIM at every place whose window lies within, ``(K, C, H−10, W−10)`` of ``(K, C, H, W)`` (Eq. 13 there)."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = (_windowed(x * x) - mean_x**2).clamp_(min=0) + (_windowed(y * y) - mean_y**2).clamp_(min=0)
    covariance = _windowed(x * y) - mean_x * mean_y
    lower = (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / lower


def _windowed(x: Tensor) -> Tensor:
    """Means over Gaussian windows, along rows and then along columns."""
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
    """``‖X̂ − X*‖_F / ‖X*‖_F``, the score of section 4.1 (success is below 0.1); NaN where the truth is 0.

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
    x, reference = _pair(estimate, truth)
    scale = torch.linalg.vector_norm(reference.flatten(1), dim=1)
    error = torch.linalg.vector_norm((x - reference).flatten(1), dim=1)
    return torch.where(scale > 0, error / scale, torch.nan)


def corruption_density(corruption: Tensor, threshold: float | Tensor, mask: Tensor | None = None) -> Tensor:
    """The share of the observed entries with ``|s| > threshold``.

    Args:
        corruption: ŝ or s*, ``(K, *m)``.
        threshold: at least 0; a number, or ``(K,)``, one a problem.
        mask: boolean ``(K, *m)``, true where observed; ``None`` where all was.

    Returns:
        ``(K,)`` in [0, 1]; NaN where nothing was observed, or where an observed entry of ``corruption`` is NaN.

    Raises:
        ValueError: a shape is wrong, or ``threshold`` is negative.

    >>> corruption_density(torch.tensor([[0.0, 0.5, -2.0, 0.01]]), threshold=0.1)
    tensor([0.5000], dtype=torch.float64)
    """
    _require_entries("corruption", corruption)
    if mask is not None:
        _observed(corruption, mask)
    above = known = undefined = torch.zeros(())
    for begin in range(0, corruption[0].numel(), AT_ONCE):  # no copy of a large corruption
        part = slice(begin, begin + AT_ONCE)
        s = _exact("corruption", corruption.flatten(1)[:, part])
        observed = _observed(s, None if mask is None else mask.flatten(1)[:, part])
        above = above + _count(_support(s, threshold) & observed)
        known = known + _count(observed)
        undefined = undefined + _undefined(s, observed)
    return torch.where(undefined > 0, torch.nan, above / known)


def support_scores(
    corruption: Tensor, true_corruption: Tensor, threshold: float | Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Precision and recall of the support of ŝ against that of s*, over observed entries.

    Both supports are the entries with ``|s| > threshold``: an entry that noise changed by less than the threshold is
    no corruption to be found. With threshold 0 they are the supports in the strict sense.

    Args:
        corruption: ŝ, ``(K, *m)``.
        true_corruption: s*, ``(K, *m)``.
        threshold: at least 0; a number, or ``(K,)``, one a problem.
        mask: boolean ``(K, *m)``, true where observed; ``None`` where all was.

    Returns:
        ``precision``, the share of ŝ's support that is in s*'s, and ``recall``, the share of s*'s that is in ŝ's, both
        ``(K,)``; NaN where the support that is the denominator is empty, or where an observed entry of ŝ is NaN.

    Raises:
        ValueError: a shape is wrong, or ``threshold`` is negative.

    >>> found, true = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> support_scores(found, true, threshold=0.1)
    (tensor([0.5000], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    # torchmetrics' samplewise scores squeeze K = 1 away and turn an empty denominator into 0 or 1
    s, s_true = _pair(corruption, true_corruption, "corruption", "true_corruption")
    observed = _observed(s, mask)
    found, true = _support(s, threshold) & observed, _support(s_true, threshold) & observed
    hits = torch.where(_undefined(s, observed), torch.nan, _count(found & true))
    return hits / _count(found), hits / _count(true)


def numerical_rank(X: Tensor, tolerance: float = 1e-2) -> Tensor:
    """The number of singular values above ``tolerance`` times the largest; 0 for the zero matrix.

    Args:
        X: matrices, ``(K, n, m)``.
        tolerance: relative, in [0, 1].

    Returns:
        ``(K,)``; NaN for a matrix with an entry that is not finite.

    Raises:
        ValueError: not three dimensions, or ``tolerance`` is out of its range.

    >>> numerical_rank(torch.stack([torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)]))
    tensor([3., 1., 0.], dtype=torch.float64)
    """
    share("tolerance", tolerance)
    if X.ndim == 3 and min(X.shape[1:]) >= LARGE_SIDE and tolerance >= LEAST_TOLERANCE:
        device = "cpu" if X.device.type == "mps" else X.device
        real = X.detach().to(device, X.dtype if X.dtype in (torch.float32, torch.float64) else torch.float32)
        ranks = [_rank_of_large(matrix, tolerance) for matrix in real]
        return torch.tensor(ranks, dtype=torch.float64, device=device)
    x = _exact("X", X)
    if x.ndim != 3:
        raise ValueError(f"X must have the shape (K, n, m), got {tuple(x.shape)}")
    finite = torch.isfinite(x).all(dim=(1, 2))
    # the solver raises for the whole batch where one matrix is not finite
    values = torch.linalg.svdvals(torch.where(finite[:, None, None], x, 0.0))  # (K, min(n, m)), descending
    return torch.where(finite, _count(values > tolerance * values[:, :1]), torch.nan)


def _rank_of_large(M: Tensor, tolerance: float) -> float:
    """Return the numerical rank of one matrix, from its leading singular values if they decide.

    With Q an orthonormal basis, ``B = QᵀM`` and ``e² = ‖M‖_F² − ‖B‖_F²``, singular values satisfy
    ``σᵢ(B) ≤ σᵢ(M) ≤ √(σᵢ(B)² + e²)``. A few columns of Q suffice if e is small.
    """
    if not all(bool(torch.isfinite(extreme)) for extreme in M.aminmax()):
        return float("nan")
    size = _norm(M)
    if size == 0:
        return 0.0
    if not 1e-15 < size < 1e15:  # squares must be numbers
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
    """``‖M‖_F``, summed in float64 without a copy of M in that type."""
    strips = M.split(max(1, AT_ONCE // M.shape[1]))
    norms = [torch.linalg.vector_norm(strip, dtype=torch.float64) for strip in strips]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def _exact(name: str, tensor: Tensor) -> Tensor:
    """Detached float64, so that scores do not depend on the type a method computes in."""
    _require_entries(name, tensor)
    # Apple's devices have no float64
    return (tensor.detach().cpu() if tensor.device.type == "mps" else tensor.detach()).double()


def _require_entries(name: str, tensor: Tensor) -> None:
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise ValueError(f"{name} must hold K problems of at least one entry, got shape {tuple(tensor.shape)}")


def _pair(left: Tensor, right: Tensor, name: str = "estimate", other: str = "truth") -> tuple[Tensor, Tensor]:
    """Two tensors of one shape; without the check one would be broadcast to the other."""
    if left.shape != right.shape:
        raise ValueError(f"{name} must have the shape of {other}, {tuple(right.shape)}, got {tuple(left.shape)}")
    x = _exact(name, left)
    return x, _exact(other, right).to(x.device)


def _observed(s: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones_like(s, dtype=torch.bool)
    if mask.shape != s.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean of shape {tuple(s.shape)}, got {mask.dtype} of {tuple(mask.shape)}")
    return mask.to(s.device)


def _support(s: Tensor, threshold: float | Tensor) -> Tensor:
    """``|s| > threshold``, with a threshold a problem broadcast over its entries."""
    if not isinstance(threshold, Tensor):
        return s.abs() > not_negative("threshold", threshold)
    if threshold.shape != s.shape[:1] or not bool((threshold >= 0).all()):
        raise ValueError(f"threshold must be at least 0 and of shape ({len(s)},), got {threshold}")
    return s.abs() > threshold.to(s).view(-1, *[1] * (s.ndim - 1))


def _undefined(s: Tensor, observed: Tensor) -> Tensor:
    """``(K,)``, true where an observed entry is NaN: a comparison with it would count as "not above"."""
    return (s.isnan() & observed).flatten(1).any(dim=1)


def _count(entries: Tensor) -> Tensor:
    """Number of true entries of each problem, ``(K,)`` float64, so that 0 / 0 is NaN."""
    return entries.flatten(1).sum(dim=1, dtype=torch.float64)
