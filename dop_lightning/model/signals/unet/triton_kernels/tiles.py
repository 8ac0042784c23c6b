"""Common device functions of the kernels, which load tiles of pixels and channels.

A tile has P pixels × D channels in float32. Images are channels-last; ``row`` and ``column`` have P entries,
``channel`` has D. A pair of branches consists of a skip branch of S channels, with a border of one pixel that is not
used, and a branch of C channels at half the resolution. Channels are numbered jointly, starting with those of the skip
branch; S = 0 is a single image. All values are converted to float32 when they are loaded, since the interpreter of
Triton returns NaN in bf16.
"""

import triton
import triton.language as tl


@triton.jit
def reflected(index, size):
    """Reflect an index that may be one below or above [0, size)."""
    index = tl.abs(index)
    return tl.where(index >= size, 2 * size - 2 - index, index)


@triton.jit
def places(row, column, width, channel, channels):
    """Return offsets (P, D) in an image of width ``width``."""
    return (row.to(tl.int64) * width + column)[:, None] * channels + channel[None, :]


@triton.jit
def leaky(z, slope):
    """Apply LeakyReLU."""
    return tl.where(z > 0, z, z * slope)


@triton.jit
def folded(gradient, row, column, channel, mask, H, W, C, PADDING: tl.constexpr):
    """Return the gradient of an image, given that of the image with reflection padding."""
    width = W + 2 * PADDING
    total = tl.load(gradient + places(row + PADDING, column + PADDING, width, channel, C), mask, 0.0).to(tl.float32)
    if PADDING == 1:
        is_near = (row == 1) | (row == H - 2) | (column == 1) | (column == W - 2)
        if tl.max(is_near.to(tl.int32), 0) > 0:
            for k in range(1, 9):  # rows and columns: the pixel itself, the border before, the border after
                i, j = k // 3, k % 3
                from_row = tl.where(i == 0, row + 1, tl.where(i == 1, 0, H + 1))
                from_column = tl.where(j == 0, column + 1, tl.where(j == 1, 0, W + 1))
                has = (i == 0) | ((i == 1) & (row == 1)) | ((i == 2) & (row == H - 2))
                has = has & ((j == 0) | ((j == 1) & (column == 1)) | ((j == 2) & (column == W - 2)))
                at = places(from_row, from_column, width, channel, C)
                total += tl.load(gradient + at, mask & has[:, None], 0.0).to(tl.float32)
    return total


@triton.jit
def of_both(of_skip, of_low, channel, S: tl.constexpr, C):
    """Load parameters (D,) of the two branches."""
    value = tl.load(of_low + (channel - S), (channel >= S) & (channel < S + C), 0.0)
    if S > 0:
        value += tl.load(of_skip + channel, channel < S, 0.0)
    return value


@triton.jit
def is_inside(pixel, channel, H, W, low_pixels, S: tl.constexpr, C):
    """Return a mask (P, D) for H·W pixels of the skip branch and ``low_pixels`` of the other one."""
    inside = (pixel < low_pixels)[:, None] & ((channel >= S) & (channel < S + C))[None, :]
    if S > 0:
        inside = inside | ((pixel < H * W)[:, None] & (channel < S)[None, :])
    return inside


@triton.jit
def raw(skip, low, pixel, channel, H, W, low_pixels, S: tl.constexpr, C):
    """Load values (P, D) of both branches at the given pixel numbers; 0 outside."""
    is_low = (pixel < low_pixels)[:, None] & ((channel >= S) & (channel < S + C))[None, :]
    value = tl.load(low + (pixel.to(tl.int64)[:, None] * C + (channel - S)[None, :]), is_low, 0.0).to(tl.float32)
    if S > 0:
        is_skip = (pixel < H * W)[:, None] & (channel < S)[None, :]
        at = places(pixel // W + 1, pixel % W + 1, W + 2, channel, S)
        value += tl.load(skip + at, is_skip, 0.0).to(tl.float32)
    return value


@triton.jit
def joined(skip, low, row, column, channel, mask, H, W, S: tl.constexpr, C, mean, inverse, gamma, beta, slope):
    """Return the concatenation (P, D) of the skip branch and the upsampled other one, normalised and activated."""
    h, w = H // 2, W // 2
    near_row, near_column = row // 2, column // 2
    far_row = tl.minimum(tl.maximum(tl.where(row % 2 == 0, near_row - 1, near_row + 1), 0), h - 1)
    far_column = tl.minimum(tl.maximum(tl.where(column % 2 == 0, near_column - 1, near_column + 1), 0), w - 1)
    scale = (inverse * gamma)[None, :]
    is_low = mask & (channel >= S)[None, :]
    value = tl.zeros([row.shape[0], channel.shape[0]], tl.float32)
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            r = near_row if i == 0 else far_row
            c = near_column if j == 0 else far_column
            x = tl.load(low + places(r, c, w, channel - S, C), is_low, 0.0).to(tl.float32)
            z = (x - mean[None, :]) * scale + beta[None, :]
            value += (0.75 if i == 0 else 0.25) * (0.75 if j == 0 else 0.25) * leaky(z, slope)
    if S > 0:
        is_skip = mask & (channel < S)[None, :]
        x = tl.load(skip + places(row + 1, column + 1, W + 2, channel, S), is_skip, 0.0).to(tl.float32)
        z = (x - mean[None, :]) * scale + beta[None, :]
        value = tl.where((channel < S)[None, :], leaky(z, slope), value)
    return value
