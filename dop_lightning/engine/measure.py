"""Measure the memory and the time that a batch needs, on one of its problems."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dop_lightning.engine.abreast import Abreast
from dop_lightning.engine.state import OutOfMemoryError, State

ARRAYS = 8
"""Arrays of the size of an observation that an iteration of a closed form works with: 5 to 6 were measured for gradient
descent and semi-implicit steps, 10 for Nesterov's (docs/performance.md), the observation itself included."""


def working_memory(state: State) -> int:
    """Bytes that a batch takes while it does an iteration, beyond what others take at rest.

    On a GPU it is the peak of two iterations. Elsewhere, where memory is not accounted for, it is what autograd keeps
    of one iteration, together with parameters, their gradients and the optimizer's memory, and a few arrays of the size
    of an observation.

    Args:
        state: to be thrown away afterwards.
    """
    device = state.problems.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        state.advance(2)
        return int(torch.cuda.max_memory_allocated(device)) - before + _bytes(_tensors(state))
    kept = _Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        state.advance(1)
    return kept.bytes + 4 * _bytes(_tensors(state)) + ARRAYS * _bytes([state.problems.observation])


class _Kept:
    """Sums what autograd keeps, each array once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[int] = set()

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter) and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _tensors(state: State) -> list[Tensor]:
    return [parameter.detach() for module in state.modules for parameter in module.parameters()]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def seconds_an_iteration(
    state: State,
    least: float = 0.3,
    most: int = 10,
    stopped: Callable[[], object] = lambda: False,
    ahead: int = 1,
    beside: Sequence[State] = (),
) -> float:
    """Time a few iterations of a batch, which is changed by them.

    Args:
        state: to be thrown away afterwards.
        least: seconds to measure for.
        most: iterations at most.
        stopped: whether to make an end of it, asked between two iterations.
        ahead: iterations that are not measured, which prepare kernels, memory and graphs.
        beside: others that are advanced side by side with it: an iteration takes a share of the time of all.
    """
    together, at_work = Abreast(), [state, *beside]

    def advance(iterations: int) -> None:
        for became in together.advance(at_work, [iterations] * len(at_work)):
            if isinstance(became, OutOfMemoryError):
                raise became

    begin = time.perf_counter()
    advance(ahead)
    if stopped():
        return (time.perf_counter() - begin) / ahead / len(at_work)
    done, begin = 0, time.perf_counter()
    while done == 0 or (done < most and time.perf_counter() - begin < least and not stopped()):
        advance(1)
        done += 1
    return (time.perf_counter() - begin) / done / len(at_work)
