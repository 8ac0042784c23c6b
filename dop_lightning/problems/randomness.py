"""Random streams that depend on (seed, purpose) and on nothing else.

Every random number of a problem comes from a stream named by the problem's seed and by what the number is for. The
name of the problem, its place in a batch, the rank and the device never enter, so that studies over a rate or a method
stay paired: the same seed is the same truth, the same corruption and the same initial point.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Literal

import torch

Purpose = Literal["truth", "corruption", "init", "perturbation", "sensing", "held_out"]


def stream_seed(seed: int, purpose: Purpose, *counters: int) -> int:
    """A 63-bit seed of the stream (seed, purpose, counters), by a hash that is the same on every platform.

    Args:
        seed: the problem's seed, any integer.
        purpose: what the numbers are for.
        counters: further integers, such as an iteration. A stream named by its iteration has no state to save.

    >>> stream_seed(0, "init") == stream_seed(0, "truth")
    False
    >>> stream_seed(3, "perturbation", 7) == stream_seed(3, "perturbation", 7)
    True
    """
    key = "/".join(["dop", str(int(seed)), purpose, *(str(int(c)) for c in counters)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def stream(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator at the start of the stream (seed, purpose, counters).

    Initial points are drawn on the CPU and moved, so that they do not depend on the device.
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, purpose, *counters))


_LENDING = RLock()
"""One thread at a time has the global generators."""


@contextmanager
def lent_stream(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Lend the stream (seed, purpose, counters) to code that draws from PyTorch's global generator, such as layers.

    The generator is afterwards where it was before. One thread at a time is inside. Threads of the user that draw from
    it meanwhile are not kept out.

    Args:
        seed: the problem's seed.
        purpose: what the numbers are for.
        counters: further integers, such as an iteration.
        device: whose global generator.
    """
    with _LENDING:
        yield from _lent(stream_seed(seed, purpose, *counters), torch.device(device))


def _lent(seed: int, kind: torch.device) -> Iterator[None]:
    if kind.type == "cpu":
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)
        return
    backend = torch.get_device_module(kind)
    before = backend.get_rng_state(kind)
    with backend.device(kind) if kind.type == "cuda" else nullcontext():  # seeds the current device
        backend.manual_seed(seed)
    try:
        yield
    finally:
        backend.set_rng_state(before, kind)
