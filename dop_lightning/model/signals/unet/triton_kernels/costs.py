"""Memory traffic and kernel launches of the fused operations, for ``scripts/count_bytes.py``.

Values that neighbouring pixels read repeatedly are assumed to be cached: the four pixels of an upsampling, and the 16
of its gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Cost(NamedTuple):
    """Cost of an operation.

    Attributes:
        launches: number of kernels.
        traffic: function that returns the bytes read and written, given arguments and results.
    """

    launches: int
    traffic: Callable[[Sequence[Any], Any], tuple[int, int]]


def _num_bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _pad(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    return _num_bytes(arguments[0]), _num_bytes(result)


def _activate(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    # moments; values
    return 2 * _num_bytes(arguments[0]), _num_bytes(*result)


def _activate_backward(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    # sums; values
    return 2 * _num_bytes(*arguments[:2]), _num_bytes(*result)


def _join(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    # moments of the branches; moments of the concatenation; values
    return 3 * _num_bytes(*arguments[:2]), _num_bytes(*result)


def _join_backward(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    gradient, skip, low = arguments[:3]
    d = _num_bytes(gradient)  # an upper bound, since d has no border
    # sums, then d, from the gradient and the branches; sums and e from d and the branches; values from d, e, branches
    read = (
        2 * _num_bytes(gradient, skip, low) + _num_bytes(skip, low) + d + _num_bytes(skip, low) + _num_bytes(skip, low)
    )
    return read, d + _num_bytes(low) + _num_bytes(*result)


COSTS = {
    "pad": Cost(1, _pad),
    "activate": Cost(3, _activate),
    "activate_backward": Cost(3, _activate_backward),
    "join": Cost(5, _join),
    "join_backward": Cost(6, _join_backward),
}
"""Costs by name of the operator."""
