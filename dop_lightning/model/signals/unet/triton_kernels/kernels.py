"""Triton kernels. Each program processes one tile, or one share of the pixels.

Names are as in :mod:`~dop_lightning.model.signals.unet.triton_kernels.tiles`. Sums over pixels take two launches: each
program writes the sums over its share to ``partial`` (shares, 2, N), and ``finish`` adds them in a fixed order.
"""

import triton
import triton.language as tl

from dop_lightning.model.signals.unet.triton_kernels.tiles import (
    folded,
    is_inside,
    joined,
    leaky,
    of_both,
    places,
    raw,
    reflected,
)


@triton.jit
def _store_sums(partial, first, second, share, channel, N):
    at = share * 2 * N + channel
    tl.store(partial + at, tl.sum(first, 0), channel < N)
    tl.store(partial + at + N, tl.sum(second, 0), channel < N)


@triton.jit
def moments(
    skip, low, moments, partial, H, W, low_pixels, S: tl.constexpr, C, PIXELS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Compute sums of ``x − x₀`` and of its square, where x₀ is the first pixel; store x₀ as the mean."""
    share, shares, begin = tl.program_id(0), tl.num_programs(0), tl.program_id(1) * CHANNELS
    channel = begin + tl.arange(0, CHANNELS)
    first = tl.sum(raw(skip, low, tl.arange(0, 1), channel, H, W, low_pixels, S, C), 0)
    end = low_pixels
    if S > 0:
        end = tl.where(begin < S, H * W, low_pixels)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    squares = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for at in range(share * PIXELS, end, shares * PIXELS):
        pixel = at + tl.arange(0, PIXELS)
        inside = is_inside(pixel, channel, H, W, low_pixels, S, C)
        x = raw(skip, low, pixel, channel, H, W, low_pixels, S, C)
        x = tl.where(inside, x - first[None, :], 0.0)
        total += x
        squares += x * x
    _store_sums(partial, total, squares, share, channel, S + C)
    if share == 0:
        tl.store(moments + channel, first, channel < S + C)


@triton.jit
def finish(
    partial,
    out,
    shares,
    N,
    skip_pixels,
    low_pixels,
    epsilon,
    S: tl.constexpr,
    MOMENTS: tl.constexpr,
    SHARES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Add up the shares into ``out`` (2, N). Convert moments to mean and 1/√(variance + ε)."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < N
    first, second = tl.zeros([CHANNELS], tl.float32), tl.zeros([CHANNELS], tl.float32)
    for begin in range(0, shares, SHARES):
        share = begin + tl.arange(0, SHARES)
        at = share[:, None] * 2 * N + channel[None, :]
        inside = (share < shares)[:, None] & mask[None, :]
        first += tl.sum(tl.load(partial + at, inside, 0.0), 0)
        second += tl.sum(tl.load(partial + at + N, inside, 0.0), 0)
    if MOMENTS:
        count = tl.where(channel < S, skip_pixels, low_pixels).to(tl.float32)
        off = first / count
        variance = tl.maximum(second / count - off * off, 0.0)
        first = tl.load(out + channel, mask, 0.0) + off
        second = 1.0 / tl.sqrt(variance + epsilon)
    tl.store(out + channel, first, mask)
    tl.store(out + N + channel, second, mask)


@triton.jit
def pad(z, y, H, W, C, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Apply one pixel of reflection padding, in the dtype of y."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = pixel // (W + 2), pixel % (W + 2)
    mask = (row < H + 2)[:, None] & (channel < C)[None, :]
    value = tl.load(z + places(reflected(row - 1, H), reflected(column - 1, W), W, channel, C), mask, 0.0)
    tl.store(y + places(row, column, W + 2, channel, C), value.to(tl.float32).to(y.dtype.element_ty), mask)


@triton.jit
def activate(
    x, moments, gamma, beta, y, H, W, C, slope, PADDING: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Normalise, activate and pad."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    width = W + 2 * PADDING
    row, column = pixel // width, pixel % width
    has = channel < C
    mask = (row < H + 2 * PADDING)[:, None] & has[None, :]
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + C + channel, has, 0.0)
    scale, shift = inverse * tl.load(gamma + channel, has, 0.0), tl.load(beta + channel, has, 0.0)
    at = places(reflected(row - PADDING, H), reflected(column - PADDING, W), W, channel, C)
    value = tl.load(x + at, mask, 0.0).to(tl.float32)
    value = leaky((value - mean[None, :]) * scale[None, :] + shift[None, :], slope)
    tl.store(y + places(row, column, width, channel, C), value.to(y.dtype.element_ty), mask)


@triton.jit
def _through_activation(
    gradient, x, row, column, channel, mask, H, W, C, mean, inverse, gamma, beta, slope, PADDING: tl.constexpr
):
    """Return the gradient before the LeakyReLU, and the normalised x."""
    value = tl.load(x + places(row, column, W, channel, C), mask, 0.0).to(tl.float32)
    normalised = tl.where(mask, (value - mean[None, :]) * inverse[None, :], 0.0)
    dz = folded(gradient, row, column, channel, mask, H, W, C, PADDING)
    return tl.where(normalised * gamma[None, :] + beta[None, :] > 0, dz, dz * slope), normalised


@triton.jit
def activate_sums(
    gradient,
    x,
    moments,
    gamma,
    beta,
    partial,
    H,
    W,
    C,
    slope,
    PADDING: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute sums for the gradients of β and γ."""
    share, shares = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    has = channel < C
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + C + channel, has, 0.0)
    scale, shift = tl.load(gamma + channel, has, 0.0), tl.load(beta + channel, has, 0.0)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    products = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for at in range(share * PIXELS, H * W, shares * PIXELS):
        pixel = at + tl.arange(0, PIXELS)
        mask = (pixel < H * W)[:, None] & has[None, :]
        dz, normalised = _through_activation(
            gradient, x, pixel // W, pixel % W, channel, mask, H, W, C, mean, inverse, scale, shift, slope, PADDING
        )
        total += dz
        products += dz * normalised
    _store_sums(partial, total, products, share, channel, C)


@triton.jit
def activate_backward(
    gradient,
    x,
    moments,
    gamma,
    beta,
    sums,
    dx,
    H,
    W,
    C,
    slope,
    PADDING: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute the gradient of x."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    has = channel < C
    mask = (pixel < H * W)[:, None] & has[None, :]
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + C + channel, has, 0.0)
    scale, shift = tl.load(gamma + channel, has, 0.0), tl.load(beta + channel, has, 0.0)
    total, products = tl.load(sums + channel, has, 0.0) / (H * W), tl.load(sums + C + channel, has, 0.0) / (H * W)
    row, column = pixel // W, pixel % W
    dz, normalised = _through_activation(
        gradient, x, row, column, channel, mask, H, W, C, mean, inverse, scale, shift, slope, PADDING
    )
    value = (scale * inverse)[None, :] * (dz - total[None, :] - normalised * products[None, :])
    tl.store(dx + places(row, column, W, channel, C), value.to(dx.dtype.element_ty), mask)


@triton.jit
def joined_moments(
    skip,
    low,
    moments,
    gamma_skip,
    beta_skip,
    gamma_low,
    beta_low,
    out,
    partial,
    H,
    W,
    S: tl.constexpr,
    C,
    slope,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute the same as ``moments`` for the concatenation."""
    share, shares = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    N = S + C
    has = channel < N
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + N + channel, has, 0.0)
    gamma, beta = of_both(gamma_skip, gamma_low, channel, S, C), of_both(beta_skip, beta_low, channel, S, C)
    corner = tl.arange(0, 1)
    is_first = (corner < 1)[:, None] & has[None, :]
    first = joined(skip, low, corner, corner, channel, is_first, H, W, S, C, mean, inverse, gamma, beta, slope)
    first = tl.sum(first, 0)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    squares = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for at in range(share * PIXELS, H * W, shares * PIXELS):
        pixel = at + tl.arange(0, PIXELS)
        mask = (pixel < H * W)[:, None] & has[None, :]
        x = joined(skip, low, pixel // W, pixel % W, channel, mask, H, W, S, C, mean, inverse, gamma, beta, slope)
        x = tl.where(mask, x - first[None, :], 0.0)
        total += x
        squares += x * x
    _store_sums(partial, total, squares, share, channel, N)
    if share == 0:
        tl.store(out + channel, first, has)


@triton.jit
def join(
    skip,
    low,
    moments,
    gamma_skip,
    beta_skip,
    gamma_low,
    beta_low,
    gamma_joined,
    beta_joined,
    y,
    H,
    W,
    S: tl.constexpr,
    C,
    slope,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Normalise the concatenation and apply one pixel of reflection padding. ``moments`` (4, N) are of both norms."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    N = S + C
    has = channel < N
    row, column = pixel // (W + 2), pixel % (W + 2)
    mask = (row < H + 2)[:, None] & has[None, :]
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + N + channel, has, 0.0)
    gamma, beta = of_both(gamma_skip, gamma_low, channel, S, C), of_both(beta_skip, beta_low, channel, S, C)
    value = joined(
        skip, low, reflected(row - 1, H), reflected(column - 1, W), channel, mask, H, W, S, C, mean, inverse, gamma,
        beta, slope,
    )  # fmt: skip
    mean, inverse = tl.load(moments + 2 * N + channel, has, 0.0), tl.load(moments + 3 * N + channel, has, 0.0)
    scale, shift = inverse * tl.load(gamma_joined + channel, has, 0.0), tl.load(beta_joined + channel, has, 0.0)
    value = (value - mean[None, :]) * scale[None, :] + shift[None, :]
    tl.store(y + places(row, column, W + 2, channel, N), value.to(y.dtype.element_ty), mask)


@triton.jit
def joined_sums(
    gradient,
    skip,
    low,
    moments,
    gamma_skip,
    beta_skip,
    gamma_low,
    beta_low,
    partial,
    H,
    W,
    S: tl.constexpr,
    C,
    slope,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute sums for the gradients of β and γ of the concatenation."""
    share, shares = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    N = S + C
    has = channel < N
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + N + channel, has, 0.0)
    center, width = tl.load(moments + 2 * N + channel, has, 0.0), tl.load(moments + 3 * N + channel, has, 0.0)
    gamma, beta = of_both(gamma_skip, gamma_low, channel, S, C), of_both(beta_skip, beta_low, channel, S, C)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    products = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for at in range(share * PIXELS, H * W, shares * PIXELS):
        pixel = at + tl.arange(0, PIXELS)
        row, column = pixel // W, pixel % W
        mask = (pixel < H * W)[:, None] & has[None, :]
        value = joined(skip, low, row, column, channel, mask, H, W, S, C, mean, inverse, gamma, beta, slope)
        dy = folded(gradient, row, column, channel, mask, H, W, N, 1)
        total += dy
        products += dy * (value - center[None, :]) * width[None, :]
    _store_sums(partial, total, products, share, channel, N)


@triton.jit
def joined_backward(
    gradient,
    skip,
    low,
    moments,
    gamma_skip,
    beta_skip,
    gamma_low,
    beta_low,
    gamma_joined,
    sums,
    d,
    H,
    W,
    S: tl.constexpr,
    C,
    slope,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradient of the concatenation to d (H, W, N); for the skip branch, that before its LeakyReLU."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    N = S + C
    has = channel < N
    row, column = pixel // W, pixel % W
    mask = (pixel < H * W)[:, None] & has[None, :]
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + N + channel, has, 0.0)
    center, width = tl.load(moments + 2 * N + channel, has, 0.0), tl.load(moments + 3 * N + channel, has, 0.0)
    gamma, beta = of_both(gamma_skip, gamma_low, channel, S, C), of_both(beta_skip, beta_low, channel, S, C)
    total, products = tl.load(sums + channel, has, 0.0) / (H * W), tl.load(sums + N + channel, has, 0.0) / (H * W)
    value = joined(skip, low, row, column, channel, mask, H, W, S, C, mean, inverse, gamma, beta, slope)
    dy = folded(gradient, row, column, channel, mask, H, W, N, 1)
    scale = width * tl.load(gamma_joined + channel, has, 0.0)
    normalised = (value - center[None, :]) * width[None, :]
    dv = scale[None, :] * (dy - total[None, :] - normalised * products[None, :])
    if S > 0:  # LeakyReLU preserves the sign
        dv = tl.where((channel < S)[None, :] & (value <= 0), dv * slope, dv)
    tl.store(d + places(row, column, W, channel, N), dv.to(d.dtype.element_ty), mask)


@triton.jit
def branch_sums(
    d,
    skip,
    low,
    moments,
    gamma_low,
    beta_low,
    e,
    partial,
    H,
    W,
    S: tl.constexpr,
    C,
    slope,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute sums for the gradients of β and γ of both branches, from d.

    Write the gradient of the lower branch before LeakyReLU and upsampling to e (H/2, W/2, C).
    """
    share, shares, begin = tl.program_id(0), tl.num_programs(0), tl.program_id(1) * CHANNELS
    channel = begin + tl.arange(0, CHANNELS)
    h, w, N = H // 2, W // 2, S + C
    has = channel < N
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + N + channel, has, 0.0)
    is_low = (channel >= S) & has
    gamma = tl.load(gamma_low + (channel - S), is_low, 0.0)
    beta = tl.load(beta_low + (channel - S), is_low, 0.0)
    end = h * w
    if S > 0:
        end = tl.where(begin < S, H * W, h * w)
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    products = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for at in range(share * PIXELS, end, shares * PIXELS):
        pixel = at + tl.arange(0, PIXELS)
        mask = (pixel < h * w)[:, None] & is_low[None, :]
        row, column = pixel // w, pixel % w
        inside = is_inside(pixel, channel, H, W, h * w, S, C)
        value = raw(skip, low, pixel, channel, H, W, h * w, S, C)
        normalised = tl.where(inside, (value - mean[None, :]) * inverse[None, :], 0.0)
        dz = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for k in range(16):  # rows and columns 2·row − 1 to 2·row + 2
            i, j = k // 4, k % 4
            from_row, from_column = 2 * row + i - 1, 2 * column + j - 1
            has_pixel = (from_row >= 0) & (from_row < H) & (from_column >= 0) & (from_column < W)
            by_row = tl.where((i == 0) | (i == 3), 0.25, 0.75)
            by_column = tl.where((j == 0) | (j == 3), 0.25, 0.75)
            weight = tl.where((from_row == 0) | (from_row == H - 1), 1.0, by_row)
            weight *= tl.where((from_column == 0) | (from_column == W - 1), 1.0, by_column)
            x = tl.load(d + places(from_row, from_column, W, channel, N), mask & has_pixel[:, None], 0.0)
            dz += weight[:, None] * x.to(tl.float32)
        dz = tl.where(normalised * gamma[None, :] + beta[None, :] > 0, dz, dz * slope)
        tl.store(e + (pixel.to(tl.int64)[:, None] * C + (channel - S)[None, :]), dz.to(e.dtype.element_ty), mask)
        if S > 0:
            is_skip = (pixel < H * W)[:, None] & (channel < S)[None, :]
            dz += tl.load(d + (pixel.to(tl.int64)[:, None] * N + channel[None, :]), is_skip, 0.0).to(tl.float32)
        total += dz
        products += dz * normalised
    _store_sums(partial, total, products, share, channel, N)


@triton.jit
def join_backward(
    d,
    e,
    skip,
    low,
    moments,
    gamma_skip,
    gamma_low,
    sums,
    dskip,
    dlow,
    H,
    W,
    S: tl.constexpr,
    C,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute the gradients of both branches, with 0 in the border of the skip branch."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    low_pixels, N = (H // 2) * (W // 2), S + C
    has = channel < N
    mean, inverse = tl.load(moments + channel, has, 0.0), tl.load(moments + N + channel, has, 0.0)
    gamma = of_both(gamma_skip, gamma_low, channel, S, C)
    total, products = tl.load(sums + channel, has, 0.0), tl.load(sums + N + channel, has, 0.0)
    scale = (gamma * inverse)[None, :]
    at = pixel.to(tl.int64)[:, None] * C + (channel - S)[None, :]
    mask = (pixel < low_pixels)[:, None] & ((channel >= S) & has)[None, :]
    normalised = (tl.load(low + at, mask, 0.0).to(tl.float32) - mean[None, :]) * inverse[None, :]
    dz = tl.load(e + at, mask, 0.0).to(tl.float32)
    dx = scale * (dz - total[None, :] / low_pixels - normalised * (products[None, :] / low_pixels))
    tl.store(dlow + at, dx.to(dlow.dtype.element_ty), mask)
    if S > 0:
        row, column = pixel // (W + 2) - 1, pixel % (W + 2) - 1
        mask = (row < H + 1)[:, None] & (channel < S)[None, :]
        inside = mask & ((row >= 0) & (row < H) & (column >= 0) & (column < W))[:, None]
        at = pixel.to(tl.int64)[:, None] * S + channel[None, :]
        normalised = (tl.load(skip + at, inside, 0.0).to(tl.float32) - mean[None, :]) * inverse[None, :]
        dz = tl.load(d + places(row, column, W, channel, N), inside, 0.0).to(tl.float32)
        dx = scale * (dz - total[None, :] / (H * W) - normalised * (products[None, :] / (H * W)))
        tl.store(dskip + at, tl.where(inside, dx, 0.0).to(dskip.dtype.element_ty), mask)
