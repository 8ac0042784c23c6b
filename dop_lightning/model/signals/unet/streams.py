"""Run independent functions concurrently on a GPU, to make full use of it with small ones."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

SIDE_STREAMS = 8
"""Maximum number of concurrent functions. Each stream has separate memory."""


@cache
def _side_streams(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    return tuple(torch.cuda.Stream(device) for _ in range(SIDE_STREAMS))


def run_concurrently(works: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
    """Return the results of independent functions, which run concurrently on a GPU.

    The kernels and results are identical to those of sequential calls. CUDA graphs are captured including the branches:
    streams that wait for a captured stream are captured, too, and are joined to it at the end, as a capture requires.

    Each backward operation runs on the stream of its forward operation. Autograd makes it wait for the streams of its
    inputs, and makes the calling stream wait for those with gradients of parameters at the end. Gradients are therefore
    also computed concurrently, and a subsequent optimizer step is ordered correctly.

    Args:
        works: functions that return one tensor each.
        device: device of all functions.
    """
    if device.type != "cuda" or len(works) == 1:
        return [work() for work in works]
    here = torch.cuda.current_stream(device)
    streams = _side_streams(device)[: len(works)]
    for stream in streams:
        # this also waits for previous uses of memory that the stream allocated, such as the last gradients
        stream.wait_stream(here)
    results = []
    try:
        for k, work in enumerate(works):
            with torch.cuda.stream(streams[k % len(streams)]):
                results.append(work())
    finally:  # after an error, wait for the functions that were already started
        for stream in streams:
            here.wait_stream(stream)
    for result in results:
        result.record_stream(here)  # its memory must not be reused by its own stream while it is read here
    return results
