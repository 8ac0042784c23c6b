"""Measure the memory and the time that a batch needs."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dop_lightning.engine.concurrency import ConcurrentBatches
from dop_lightning.engine.state import OutOfMemoryError, State

ARRAYS = 8
"""Number of arrays of the size of an observation that an iteration in closed form uses. Measured, with the observation
itself: 5 to 6 for gradient descent and semi-implicit steps, 10 for Nesterov (docs/performance.md)."""


def working_memory(state: State) -> int:
    """Return the bytes that a batch needs during an iteration, in addition to the memory of inactive batches.

    On a GPU, this is the peak of two iterations. Elsewhere, memory is not tracked, and the result is an estimate: the
    tensors that autograd saves in one iteration, the parameters, their gradients and the state of the optimizer, and a
    few arrays of the size of an observation.

    Args:
        state: the batch; it is advanced, discard it afterwards.
    """
    device = state.problems.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        state.advance(2)
        return int(torch.cuda.max_memory_allocated(device)) - before + _num_bytes(_tensors(state))
    kept = _SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        state.advance(1)
    return kept.bytes + 4 * _num_bytes(_tensors(state)) + ARRAYS * _num_bytes([state.problems.observation])


class _SavedBytes:
    """Sums the bytes that autograd saves, counting each storage once."""

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


def _num_bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def seconds_per_iteration(
    state: State,
    least: float = 0.3,
    most: int = 10,
    stopped: Callable[[], object] = lambda: False,
    ahead: int = 1,
    beside: Sequence[State] = (),
) -> float:
    """Return the time in seconds of one iteration of a batch, averaged over a few iterations.

    Args:
        state: the batch; it is advanced, discard it afterwards.
        least: minimum duration of the measurement in seconds.
        most: maximum number of iterations.
        stopped: called between iterations; the measurement ends early if it returns true.
        ahead: warm-up iterations, in which kernels, memory and graphs are prepared; not measured.
        beside: batches that are advanced concurrently. The measured time is divided by the number of batches.
    """
    together, states = ConcurrentBatches(), [state, *beside]

    def advance(iterations: int) -> None:
        for outcome in together.advance(states, [iterations] * len(states)):
            if isinstance(outcome, OutOfMemoryError):
                raise outcome

    begin = time.perf_counter()
    advance(ahead)
    if stopped():
        return (time.perf_counter() - begin) / ahead / len(states)
    done, begin = 0, time.perf_counter()
    while done == 0 or (done < most and time.perf_counter() - begin < least and not stopped()):
        advance(1)
        done += 1
    return (time.perf_counter() - begin) / done / len(states)
