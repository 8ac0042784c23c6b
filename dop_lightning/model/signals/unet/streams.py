"""Independent pieces of work beside each other on a GPU, so that small ones fill it together."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

SIDE_STREAMS = 8
"""At most so many pieces at a time: each stream keeps memory of its own."""


@cache
def _side_streams(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    return tuple(torch.cuda.Stream(device) for _ in range(SIDE_STREAMS))


def side_by_side(works: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
    """The results of pieces of work of which none needs another's; on a GPU they are done beside each other.

    The kernels are the same as one after the other, and so are the bits. A graph is captured with its branches: streams
    that wait for one that is captured are captured with it, and are joined to it at the end, as a capture requires.

    With gradients, each backward operation runs on the stream of its forward one: autograd lets it wait for the
    streams that its input comes from, and at its end lets the stream from which it was called wait for those that hold
    gradients of parameters. So gradients too are made side by side, and an optimizer step after that is in order.

    Args:
        works: each gives one tensor.
        device: where all of them work.
    """
    if device.type != "cuda" or len(works) == 1:
        return [work() for work in works]
    here = torch.cuda.current_stream(device)
    streams = _side_streams(device)[: len(works)]
    for stream in streams:
        # it also comes after what was last done here with memory that it gave, such as the gradients of the last step
        stream.wait_stream(here)
    results = []
    try:
        for k, work in enumerate(works):
            with torch.cuda.stream(streams[k % len(streams)]):
                results.append(work())
    finally:  # what was begun before an error comes before what is done about it
        for stream in streams:
            here.wait_stream(stream)
    for result in results:
        result.record_stream(here)  # its memory is not given to its own stream again while it is read here
    return results
