"""Steps of Muon on the kernels of narrow networks, compiled: on a CPU several times as fast as PyTorch operations.

Those are many short operations, in which several threads mostly wait for each other.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.native.compiled import library

MAX_SIDE = 64
"""Maximum shorter side of a kernel as a matrix. For larger matrices, the products of PyTorch are faster."""

MAX_LENGTH = 4096
"""Maximum longer side. Rounding errors of the Gram matrix, a sum over this side, grow with it."""


def can_step(kernels: Sequence[Tensor]) -> bool:
    """Return whether :func:`step` supports these parameters, and is faster.

    They must be in float32 on the CPU, contiguous or channels last, and as matrices have sides of at most
    :data:`MAX_SIDE` and :data:`MAX_LENGTH`.
    """
    are_supported = all(p.dtype == torch.float32 and p.device.type == "cpu" and _is_narrow(p) for p in kernels)
    return are_supported and library() is not None


def _is_narrow(p: Tensor) -> bool:
    """Return whether p is a narrow matrix, outputs × other dimensions, in one of PyTorch's memory layouts."""
    if p.numel() == 0:
        return False
    shorter, longer = sorted((p.shape[0], p.numel() // p.shape[0]))
    if shorter > MAX_SIDE or longer > MAX_LENGTH:
        return False
    return p.is_contiguous() or p.movedim(1, -1).is_contiguous()


def step(
    kernels: Sequence[Tensor],
    gradients: Sequence[Tensor],
    averages: Sequence[Tensor],
    lr: float,
    momentum: float,
    rounds: int,
) -> None:
    """Update averages and kernels in place, see :class:`~dop_lightning.engine.optim.muon.Muon`.

    All products are in float32. The result does not depend on the number of threads.

    Args:
        kernels: parameters for which :func:`can_step` is true.
        gradients: their gradients.
        averages: averages of their gradients.
        lr: η.
        momentum: decay of the averages.
        rounds: number of Newton–Schulz steps, at least 1. More than 5 would amplify rounding errors.

    Raises:
        ValueError: ``rounds`` is less than 1.
    """
    at_least("rounds", rounds, 1)
    found = library()
    assert found is not None
    own = [_like(gradient, p) for p, gradient in zip(kernels, gradients, strict=True)]
    kept = [_like(average, p) for p, average in zip(kernels, averages, strict=True)]
    number = len(kernels)
    pointers, sizes = ctypes.c_void_p * number, ctypes.c_int64 * number
    found.step_muon(
        *(pointers(*(tensor.data_ptr() for tensor in each)) for each in (kernels, own, kept)),
        sizes(*(p.shape[0] for p in kernels)),
        sizes(*(p.numel() // p.shape[0] for p in kernels)),
        ctypes.c_int64(number),
        ctypes.c_float(lr),
        ctypes.c_float(momentum),
        ctypes.c_int(rounds),
        ctypes.c_int(torch.get_num_threads()),
    )
    for average, copy in zip(averages, kept, strict=True):
        if average is not copy:
            average.copy_(copy)


def _like(tensor: Tensor, p: Tensor) -> Tensor:
    """Return a tensor in the memory layout of p, itself if it has that layout."""
    return tensor if tensor.stride() == p.stride() else torch.empty_like(p).copy_(tensor)
