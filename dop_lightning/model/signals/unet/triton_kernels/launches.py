"""Launch the kernels: grids, tiles, and buffers for sums. Arguments are not checked.

Shapes: images ``(1, C, H, W)``, channels last in memory; S channels of a skip branch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.model.signals.unet.triton_kernels import kernels

SLOPE = 0.2
EPSILON = 1e-5

MAX_PROGRAMS = 256
"""Maximum number of programs per block of channels among which the pixels of a sum are distributed."""

TILE_ELEMENTS = 4096
"""Number of elements of a tile."""

CHANNELS = 64
"""Maximum number of channels of a tile: 128 bytes per pixel in bf16."""


WARPS = 8
"""Warps per program: each thread processes 16 values of a tile."""


def _tile_size(channels: int) -> tuple[int, int]:
    """Return the pixels and channels of a tile, both powers of 2."""
    across = min(CHANNELS, 1 << max(channels - 1, 1).bit_length())
    return TILE_ELEMENTS // across, across


def _num_blocks(count: int, size: int) -> int:
    return -(-count // size)


class _Sums:
    """Buffer for partial sums over pixels."""

    def __init__(self, like: Tensor, pixels: int, channels: int) -> None:
        self.pixels, self.channels = _tile_size(channels)
        self.shares = min(_num_blocks(pixels, self.pixels), MAX_PROGRAMS)
        self.grid = (self.shares, _num_blocks(channels, self.channels))
        self.partial = torch.empty(self.shares, 2, channels, dtype=torch.float32, device=like.device)

    def finish(self, out: Tensor, skip_pixels: int, low_pixels: int, S: int, moments: bool) -> None:
        """Add up the partial sums, or convert them to moments, into ``out`` ``(2, N)``."""
        channels = self.partial.shape[2]
        kernels.finish[(_num_blocks(channels, 32),)](
            self.partial,
            out,
            self.shares,
            channels,
            skip_pixels,
            low_pixels,
            EPSILON,
            S,
            moments,
            64,
            32,
            num_warps=WARPS,
        )


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def empty_image(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty image, channels last."""
    shape = (1, channels, height, width)
    dtype = like.dtype if dtype is None else dtype
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def pad(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply one pixel of reflection padding, in ``dtype``."""
    z = _channels_last(z)
    _, C, H, W = z.shape
    y = empty_image(z, C, H + 2, W + 2, dtype)
    pixels, channels = _tile_size(C)
    grid = (_num_blocks((H + 2) * (W + 2), pixels), _num_blocks(C, channels))
    kernels.pad[grid](z, y, H, W, C, pixels, channels, num_warps=WARPS)
    return y


def activate(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Apply norm, LeakyReLU and padding; also return mean and inverse standard deviation ``(2, C)``."""
    x = _channels_last(x)
    _, C, H, W = x.shape
    moments = torch.empty(2, C, dtype=torch.float32, device=x.device)
    sums = _Sums(x, H * W, C)
    kernels.moments[sums.grid](
        x, x, moments, sums.partial, H, W, H * W, 0, C, sums.pixels, sums.channels, num_warps=WARPS
    )
    sums.finish(moments, H * W, H * W, 0, True)
    y = empty_image(x, C, H + 2 * padding, W + 2 * padding)
    grid = (_num_blocks(y.shape[2] * y.shape[3], sums.pixels), sums.grid[1])
    kernels.activate[grid](
        x, moments, gamma, beta, y, H, W, C, SLOPE, padding, sums.pixels, sums.channels, num_warps=WARPS
    )
    return y, moments


def activate_backward(
    gradient: Tensor, x: Tensor, moments: Tensor, gamma: Tensor, beta: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Return the gradient of x, and those of β and γ ``(2, C)``."""
    gradient, x = _channels_last(gradient), _channels_last(x)
    _, C, H, W = x.shape
    total, dx = torch.empty_like(moments), torch.empty_like(x)
    sums = _Sums(x, H * W, C)
    kernels.activate_sums[sums.grid](
        gradient,
        x,
        moments,
        gamma,
        beta,
        sums.partial,
        H,
        W,
        C,
        SLOPE,
        padding,
        sums.pixels,
        sums.channels,
        num_warps=WARPS,
    )
    sums.finish(total, H * W, H * W, 0, False)
    kernels.activate_backward[(_num_blocks(H * W, sums.pixels), sums.grid[1])](
        gradient,
        x,
        moments,
        gamma,
        beta,
        total,
        dx,
        H,
        W,
        C,
        SLOPE,
        padding,
        sums.pixels,
        sums.channels,
        num_warps=WARPS,
    )
    return dx, total


def join(skip: Tensor, low: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Normalise and activate both branches, upsample the lower one, concatenate, normalise and pad.

    Also return the moments ``(4, N)`` of the branches and of the concatenation.
    """
    skip, low = _channels_last(skip), _channels_last(low)
    S, C, H, W = skip.shape[1], low.shape[1], 2 * low.shape[2], 2 * low.shape[3]
    N, pixels = S + C, H * W
    moments = torch.empty(4, N, dtype=torch.float32, device=low.device)
    of_branches, of_norm = parameters[:4], parameters[4:]
    sums = _Sums(low, pixels, N)
    tile = (sums.pixels, sums.channels)
    kernels.moments[sums.grid](skip, low, moments, sums.partial, H, W, pixels // 4, S, C, *tile, num_warps=WARPS)
    sums.finish(moments[:2], pixels, pixels // 4, S, True)
    kernels.joined_moments[sums.grid](
        skip, low, moments, *of_branches, moments[2:], sums.partial, H, W, S, C, SLOPE, *tile, num_warps=WARPS
    )
    sums.finish(moments[2:], pixels, pixels, S, True)
    y = empty_image(low, N, H + 2, W + 2)
    grid = (_num_blocks((H + 2) * (W + 2), sums.pixels), sums.grid[1])
    kernels.join[grid](skip, low, moments, *of_branches, *of_norm, y, H, W, S, C, SLOPE, *tile, num_warps=WARPS)
    return y, moments


def join_backward(
    gradient: Tensor, skip: Tensor, low: Tensor, moments: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of both branches, and of β and γ ``(4, N)`` of the branches and the concatenation."""
    gradient, skip, low = _channels_last(gradient), _channels_last(skip), _channels_last(low)
    S, C, H, W = skip.shape[1], low.shape[1], 2 * low.shape[2], 2 * low.shape[3]
    N, pixels = S + C, H * W
    of_branches, total = parameters[:4], torch.empty_like(moments)
    sums = _Sums(low, pixels, N)
    tile = (sums.pixels, sums.channels)
    grid = (_num_blocks(pixels, sums.pixels), sums.grid[1])
    kernels.joined_sums[sums.grid](
        gradient, skip, low, moments, *of_branches, sums.partial, H, W, S, C, SLOPE, *tile, num_warps=WARPS
    )
    sums.finish(total[2:], pixels, pixels, S, False)
    d = empty_image(low, N, H, W)
    kernels.joined_backward[grid](
        gradient,
        skip,
        low,
        moments,
        *of_branches,
        parameters[4],
        total[2:],
        d,
        H,
        W,
        S,
        C,
        SLOPE,
        *tile,
        num_warps=WARPS,
    )
    e = torch.empty_like(low)
    kernels.branch_sums[sums.grid](
        d, skip, low, moments, *of_branches[2:], e, sums.partial, H, W, S, C, SLOPE, *tile, num_warps=WARPS
    )
    sums.finish(total[:2], pixels, pixels // 4, S, False)
    dskip, dlow = torch.empty_like(skip), torch.empty_like(low)
    grid = (_num_blocks((H + 2) * (W + 2), sums.pixels), sums.grid[1])
    gammas = (of_branches[0], of_branches[2])
    kernels.join_backward[grid](
        d, e, skip, low, moments, *gammas, total[:2], dskip, dlow, H, W, S, C, *tile, num_warps=WARPS
    )
    return dskip, dlow, total
