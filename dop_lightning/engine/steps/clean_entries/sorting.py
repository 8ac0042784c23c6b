"""Sorting and cumulative sums. On a CPU, NumPy sorts many times faster than torch, with the same result."""

import numpy as np
import torch
from torch import Tensor


def ascending(values: Tensor) -> Tensor:
    """Return all values in ascending order as one dimension; nan last.

    >>> ascending(torch.tensor([0.3, 0.1, 0.2]))
    tensor([0.1000, 0.2000, 0.3000])
    """
    return ascending_lines(values.flatten())


def ascending_lines(values: Tensor) -> Tensor:
    """Return values in ascending order along the last dimension; nan last."""
    if values.device.type != "cpu" or not _is_supported(values.dtype):
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.detach().numpy(), axis=-1))


def stable_order(values: Tensor) -> Tensor:
    """Return the indices that sort values in ascending order; stable, int64.

    Args:
        values: one dimension, without nan.

    >>> stable_order(torch.tensor([0.3, -0.1, 0.3, 0.2]))
    tensor([1, 3, 0, 2])
    """
    if values.device.type != "cpu" or values.dtype != torch.float32 or len(values) >= 1 << 32:
        return values.sort(stable=True).indices
    bits = (values.detach() + 0.0).numpy().view(np.uint32)  # -0 becomes 0
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)  # unsigned, in the same order
    keys = (keys << np.uint64(32)) | np.arange(len(keys), dtype=np.uint64)
    return torch.from_numpy((np.sort(keys) & np.uint64(0xFFFFFFFF)).astype(np.int64))


def few_order(values: Tensor, number: int) -> Tensor:
    """Return the indices that sort integers from 0 to ``number − 1`` in ascending order; stable, int64.

    >>> few_order(torch.tensor([2, 0, 2, 1]), 3)
    tensor([1, 3, 0, 2])
    """
    if values.device.type != "cpu" or number > 1 << 15:
        return values.argsort(stable=True)
    return torch.from_numpy(np.argsort(values.to(torch.int16).numpy(), kind="stable"))  # by radix sort


def cumulated(values: Tensor, dim: int = 0) -> Tensor:
    """Return cumulative sums along a dimension.

    CUDA has no deterministic kernel for floats, so the CPU computes them if deterministic algorithms are enabled.

    >>> cumulated(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """
    if values.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled():
        return values.cumsum(dim)
    return values.cpu().cumsum(dim).to(values.device)


def _is_supported(dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.float64, torch.int16, torch.int32, torch.int64)
