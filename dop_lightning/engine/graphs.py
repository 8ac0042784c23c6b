"""An iteration as a CUDA graph: captured once, and from then on replayed by one call.

An iteration of a network is hundreds of short kernels, which the host takes longer to launch than a fast GPU takes to
do. A graph holds them with their arguments and memory. So it is right only as long as every array that it reads from
before, or leaves behind, stays where it is (:func:`identity_of`), and as nothing in it depends on the number of the
iteration: what does (the perturbation of an input) is put into such an array ahead, by
:meth:`~dop_lightning.model.signals.abilities.Perturbed.prepare`.

Plain torch. The part that needs a GPU is :class:`CudaGraphs`; all else is the same with another :class:`Backend`.
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

Work = Callable[[], None]

WARM_UP = 3
"""Iterations before a capture. In them kernels are chosen, and workspaces and the optimizer's memory are made."""

WORTH = 20
"""Replays that a capture is made for, at least: it takes about as long as a few iterations without a graph."""


class Backend(Protocol):
    """What iterations are run and captured by."""

    def run(self, work: Work) -> None:
        """Do the work once."""

    def capture(self, work: Work) -> Work:
        """Note what the work does on the device, without doing it, and return what does it again and again."""


class CudaGraphs:
    """The :class:`Backend` of a GPU: everything on one stream beside the default one, on which nothing can be captured.

    Args:
        device: of type ``cuda``.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def run(self, work: Work) -> None:
        """The work, on the stream on which it will be captured, after all that came before it and before all after."""
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        try:
            with torch.cuda.stream(self.stream):
                work()
        finally:  # what was begun before an error comes before what is done about it
            here.wait_stream(self.stream)

    def capture(self, work: Work) -> Work:
        """The work as a graph, with memory of its own.

        Raises:
            Exception: what the work raised, or why it cannot be captured.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        failure: Exception | None = None
        try:
            # The outer context brings the stream of before back where the end of a capture fails. Other threads may go
            # on using the device: the mode «global» would take what they do for an error.
            with (
                torch.cuda.stream(self.stream),
                torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"),
            ):
                try:
                    work()
                except Exception as error:  # the capture has to be ended, which fails as well then
                    failure = error
        except Exception as error:
            failure = failure or error
            _close_pool(self.device, pool)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it knows this frame, and with it all that the work has made
        return graph.replay


def _close_pool(device: torch.device, pool: Any) -> None:
    """End the allocations of a capture that could not be ended.

    PyTorch leaves its allocator recording into the pool of such a capture. ``empty_cache()`` and later captures then
    fail in the whole process.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    for close in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        # closed already where PyTorch has ended the capture before it failed
        with suppress(AttributeError, RuntimeError):
            getattr(torch._C, close)(index, pool)


class Replay:
    """Does the iterations of one batch: some one by one, and from then on by a graph.

    Args:
        backend: what captures.
        divisible: whether a batch that takes too much memory can go on in parts: then it is not done without a graph
            where that is what memory is too short for.
    """

    def __init__(self, backend: Backend, divisible: bool = False) -> None:
        self.divisible = divisible
        self._backend: Backend | None = backend
        self._graph: Work | None = None
        self._identity: Hashable = None
        self._warm = 0

    @property
    def holds_graph(self) -> bool:
        """Whether there is a graph, which keeps the memory of a whole iteration."""
        return self._graph is not None

    def is_about(self, identity: Hashable) -> bool:
        """Whether a graph, if there is one, was captured with these arrays and settings."""
        return self._graph is None or self._identity == identity

    def run(self, work: Work, identity: Callable[[], Hashable], left: int) -> None:
        """Do an iteration, once.

        Args:
            work: the iteration, the same at every call but for what is put into its arrays before.
            identity: what a graph of the work is bound to, hashable.
            left: iterations to come in the present block, this one included.

        Raises:
            Exception: what the work raises; one that says that memory is short also where it is captured, if
                ``divisible``.
        """
        warm = self._warm >= WARM_UP
        # where batches take turns, release comes between their blocks: short ones are not worth it
        if self._graph is None and self._backend is not None and warm and max(left, self._warm) >= WORTH:
            self._capture(self._backend, work, identity)
        if self._graph is not None:
            self._graph()
        elif self._backend is not None:
            self._backend.run(work)
            self._warm += 1
        else:
            work()

    def _capture(self, backend: Backend, work: Work, identity: Callable[[], Hashable]) -> None:
        """A graph of the work; where there is none to be had, a warning and never another attempt."""
        try:
            self._identity = identity()
            self._graph = backend.capture(work)  # nothing has been done yet, whether it fails or not
        except Exception as error:
            if self.divisible and is_out_of_memory(error):
                raise
            self._backend = None
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"iterations go on without a CUDA graph, more slowly: {type(error).__name__}: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )

    def release(self) -> None:
        """Let go of the graph and its memory; the next iterations are run one by one again."""
        self._graph = None
        self._identity = None
        self._warm = 0


def replay_for(state: BatchState) -> Replay | None:
    """What does the iterations of a batch; ``None`` where they are done one by one, without a graph."""
    device = state.problems.device
    if device.type != "cuda" or not state.method.graphs or not is_capturable(state):
        return None
    return Replay(CudaGraphs(device), divisible=len(state) > 1)


def iterations_ahead(device: torch.device | str) -> int:
    """Iterations after which those to come are as fast as they will be."""
    return WARM_UP + WORTH if torch.device(device).type == "cuda" else 1


def is_capturable(state: BatchState) -> bool:
    """Whether all that an iteration does is done on the device, and the same every time."""
    optimizers = all(is_capturable_optimizer(optimizer) for optimizer in state.optimizers)
    return state.signal.capturable and state.operator.capturable and optimizers


def identity_of(state: BatchState) -> Hashable:
    """Where all arrays lie that outlast an iteration, and the settings that a graph of it has as constants.

    A graph that was captured with others is wrong: the module was moved, a rate was changed.
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
            settings += [_constant(key, value) for key, value in group.items() if key != "params"]
    return tuple(array.data_ptr() for array in arrays), tuple(settings)


def _constant(key: str, value: object) -> Hashable:
    """A setting by its value where it is plain, else by which object it is."""
    if isinstance(value, (list, tuple)):
        return key, tuple(_constant(key, item) for item in value)
    return key, value if isinstance(value, (int, float, str, type(None))) else id(value)
