"""Normal random numbers added to an array in one pass."""

import ctypes

import torch
from torch import Tensor

from dop_lightning.foundation.native.compiled import library

LONGEST = 1 << 32
"""Number of values after which a stream repeats."""


def add_normal(x: Tensor, std: float, seed: int, out: Tensor | None = None) -> Tensor:
    """Return ``x + std·n`` with ``n ~ N(0, 1)``, by a counter-based generator and the transform of Box and Muller.

    The counters are hashed by lowbias32 [Wellons, 2018]. Value i depends only on the seed and i, not on the number of
    threads, and up to rounding not on the processor.

    Args:
        x: float32, contiguous, on the CPU, with at most :data:`LONGEST` values.
        std: standard deviation.
        seed: seed of the stream, at least 0 and below 2⁶³.
        out: array for the result, like x; a new one by default.

    Raises:
        ValueError: an array has another type or memory layout.
        RuntimeError: the compiled kernels are not available.

    >>> x = torch.zeros(4)
    >>> torch.equal(add_normal(x, 1.0, seed=3), add_normal(x, 1.0, seed=3)) if library() else True
    True
    """
    out = torch.empty_like(x) if out is None else out
    for name, array in (("x", x), ("out", out)):
        if array.dtype != torch.float32 or array.device.type != "cpu" or not array.is_contiguous():
            raise ValueError(f"{name} must be contiguous float32 on the CPU, got {array.dtype} on {array.device}")
    if out.shape != x.shape or x.numel() > LONGEST:
        raise ValueError(f"out must have the shape of x and at most 2^32 values, got {tuple(out.shape)}")
    kernels = library()
    if kernels is None:
        raise RuntimeError("compiled kernels are not available on this machine; check library() first")
    kernels.add_normal(
        ctypes.c_void_p(x.data_ptr()),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int64(x.numel()),
        ctypes.c_float(std),
        ctypes.c_uint64(seed),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out
