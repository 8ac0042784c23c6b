"""CUDA graphs of an iteration: captured once, then replayed with a single call.

An iteration of a network consists of hundreds of short kernels. Launching them takes the host longer than a fast GPU
needs to run them. A graph stores the kernels with their arguments and memory. It is valid as long as all arrays that
outlive an iteration keep their addresses (:func:`identity_of`), and the kernels do not depend on the number of the
iteration. Values that do depend on it (the perturbation of an input) are written into such an array before the
iteration, by :meth:`~dop_lightning.model.signals.capabilities.Perturbed.prepare`.

Plain torch. Only :class:`CudaGraphs` needs a GPU; the rest works with any :class:`Backend`.
"""

import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.optim.capturable import is_capturable_optimizer
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.foundation.renamed import RenamedAttribute

Work = Callable[[], None]

WARM_UP = 3
"""Iterations before a capture. They select kernels, and allocate workspaces and the state of the optimizer."""

MIN_REPLAYS = 20
"""Minimum number of replays for a capture, which takes about as long as a few iterations without a graph."""


class Backend(Protocol):
    """Runs and captures iterations."""

    def run(self, work: Work) -> None:
        """Run the work once."""

    def capture(self, work: Work) -> Work:
        """Record the work on the device without running it, and return a function that replays it."""


class CudaGraphs:
    """The :class:`Backend` of a GPU. Work runs on a side stream, since the default stream cannot be captured.

    Args:
        device: a device of type ``cuda``.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def run(self, work: Work) -> None:
        """Run the work on the stream of the capture, ordered with earlier and later work of the current stream."""
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        try:
            with torch.cuda.stream(self.stream):
                work()
        finally:  # also after an error: wait for the kernels that were already launched
            here.wait_stream(self.stream)

    def capture(self, work: Work) -> Work:
        """Capture the work as a graph with a separate memory pool, and return its replay function.

        Raises:
            Exception: the error that the work raised, or that prevented its capture.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        failure: Exception | None = None
        try:
            # The outer context restores the current stream if ending the capture fails. Other threads may use the
            # device meanwhile; in the mode "global", that would be an error.
            with (
                torch.cuda.stream(self.stream),
                torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"),
            ):
                try:
                    work()
                except Exception as error:  # the capture must still be ended, which then fails as well
                    failure = error
        except Exception as error:
            failure = failure or error
            _close_pool(self.device, pool)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it refers to this frame, and thereby to all tensors of the work
        return graph.replay


def _close_pool(device: torch.device, pool: Any) -> None:
    """Release the memory pool of a capture that could not be ended.

    PyTorch's allocator would continue to allocate from the pool of such a capture, and ``empty_cache()`` and later
    captures would fail in the whole process.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    for close in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        # already closed if PyTorch ended the capture before the failure
        with suppress(AttributeError, RuntimeError):
            getattr(torch._C, close)(index, pool)


class Replay:
    """Runs the iterations of one batch: the first ones directly, the others by replaying a graph.

    Args:
        backend: runs and captures iterations.
        divisible: whether the batch can be split if memory is short. If so, running out of memory during the capture
            raises an error; otherwise the iterations continue without a graph.
    """

    def __init__(self, backend: Backend, divisible: bool = False) -> None:
        self.divisible = divisible
        self._backend: Backend | None = backend
        self._graph: Work | None = None
        self._identity: Hashable = None
        self._warm = 0

    @property
    def holds_graph(self) -> bool:
        """Whether a graph has been captured. It keeps the memory of a whole iteration."""
        return self._graph is not None

    def matches(self, identity: Hashable) -> bool:
        """Return whether the graph was captured with these arrays and settings; true if there is no graph."""
        return self._graph is None or self._identity == identity

    def run(self, work: Work, identity: Callable[[], Hashable], left: int) -> None:
        """Run one iteration.

        Args:
            work: the iteration. It must be the same at every call, except for the contents of its arrays.
            identity: returns a hashable value that identifies the arrays and settings that a graph depends on.
            left: iterations left in the current block, including this one.

        Raises:
            Exception: an error of the work; if ``divisible``, also running out of memory during a capture.
        """
        warm = self._warm >= WARM_UP
        # if batches take turns, graphs are released after each block: a short block does not pay for a capture
        if self._graph is None and self._backend is not None and warm and max(left, self._warm) >= MIN_REPLAYS:
            self._capture(self._backend, work, identity)
        if self._graph is not None:
            self._graph()
        elif self._backend is not None:
            self._backend.run(work)
            self._warm += 1
        else:
            work()

    def _capture(self, backend: Backend, work: Work, identity: Callable[[], Hashable]) -> None:
        """Capture a graph of the work. If that fails, warn and do not try again."""
        try:
            self._identity = identity()
            self._graph = backend.capture(work)  # does not run the work, whether it fails or not
        except Exception as error:
            if self.divisible and is_out_of_memory(error):
                raise
            self._backend = None
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"iterations continue without a CUDA graph, more slowly: {type(error).__name__}: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )

    def release(self) -> None:
        """Free the graph and its memory. The next iterations run directly again."""
        self._graph = None
        self._identity = None
        self._warm = 0

    # Old names, until version 0.3.
    is_about = RenamedAttribute("matches")


def replay_for(state: BatchState) -> Replay | None:
    """Return the :class:`Replay` of a batch; ``None`` if its iterations do not support graphs."""
    device = state.problems.device
    if device.type != "cuda" or not state.method.graphs or not is_capturable(state):
        return None
    return Replay(CudaGraphs(device), divisible=len(state) > 1)


def iterations_ahead(device: torch.device | str) -> int:
    """Return the number of iterations before the maximum speed is reached."""
    return WARM_UP + MIN_REPLAYS if torch.device(device).type == "cuda" else 1


def is_capturable(state: BatchState) -> bool:
    """Return whether an iteration runs entirely on the device and launches the same kernels every time."""
    optimizers = all(is_capturable_optimizer(optimizer) for optimizer in state.optimizers)
    return state.signal.capturable and state.operator.capturable and optimizers


def identity_of(state: BatchState) -> Hashable:
    """Return the addresses of all arrays that outlive an iteration, and the settings that a graph has as constants.

    If they change, a captured graph is invalid, for example after a module was moved or a learning rate was changed.
    """
    modules = (state.signal, state.corruption, state.operator)
    prepared = () if state.signal.perturbed is None else state.signal.perturbed.prepared
    arrays = [state.problems.observation, *prepared, *state.memory.values()]
    arrays += [array for module in modules for array in (*module.parameters(), *module.buffers())]
    settings: list[Hashable] = []
    for optimizer in state.optimizers:
        for remembered in optimizer.state.values():
            arrays += [value for value in remembered.values() if isinstance(value, Tensor)]
        for group in optimizer.param_groups:
            settings += [_setting_key(key, value) for key, value in group.items() if key != "params"]
    return tuple(array.data_ptr() for array in arrays), tuple(settings)


def _setting_key(key: str, value: object) -> Hashable:
    """Return a setting by value if it is a plain value, else by the identity of the object."""
    if isinstance(value, (list, tuple)):
        return key, tuple(_setting_key(key, item) for item in value)
    return key, value if isinstance(value, (int, float, str, type(None))) else id(value)
