"""What the fused operations read, write and launch, for those who count (``scripts/count_bytes.py``).

Caches are supposed to hold what neighbouring pixels read again: the four pixels of an upsampling, the 16 of its
gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Cost(NamedTuple):
    """What an operation takes.

    Attributes:
        launches: kernels.
        traffic: bytes read and written, given the arguments and the results.
    """

    launches: int
    traffic: Callable[[Sequence[Any], Any], tuple[int, int]]


def _size(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _pad(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    return _size(arguments[0]), _size(result)


def _activate(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    # moments; values
    return 2 * _size(arguments[0]), _size(*result)


def _activate_backward(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    # sums; values
    return 2 * _size(*arguments[:2]), _size(*result)


def _join(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    # moments of the branches; moments of what is concatenated; values
    return 3 * _size(*arguments[:2]), _size(*result)


def _join_backward(arguments: Sequence[Any], result: Any) -> tuple[int, int]:
    gradient, skip, low = arguments[:3]
    d = _size(gradient)  # a border more than it has
    # sums, then d, from the gradient and the branches; sums and e from d and the branches; values from d, e, branches
    read = 2 * _size(gradient, skip, low) + _size(skip, low) + d + _size(skip, low) + _size(skip, low)
    return read, d + _size(low) + _size(*result)


COSTS = {
    "pad": Cost(1, _pad),
    "activate": Cost(3, _activate),
    "activate_backward": Cost(3, _activate_backward),
    "join": Cost(5, _join),
    "join_backward": Cost(6, _join_backward),
}
"""By the name of the operator."""
