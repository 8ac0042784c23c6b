"""Random streams that depend only on (seed, purpose).

Every random number of a problem comes from a stream that is identified by the seed of the problem and the purpose of
the number. It does not depend on the name of the problem, its position in a batch, the rank or the device. Studies over
rates or methods are therefore paired: the same seed gives the same truth, corruption and initial point.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Literal

import torch

Purpose = Literal["truth", "corruption", "init", "perturbation", "sensing", "held_out"]


def stream_seed(seed: int, purpose: Purpose, *counters: int) -> int:
    """Return a 63-bit seed for the stream (seed, purpose, counters), from a platform-independent hash.

    Args:
        seed: seed of the problem, any integer.
        purpose: purpose of the numbers.
        counters: further integers, such as the iteration. Streams identified by the iteration have no state to save.

    >>> stream_seed(0, "init") == stream_seed(0, "truth")
    False
    >>> stream_seed(3, "perturbation", 7) == stream_seed(3, "perturbation", 7)
    True
    """
    key = "/".join(["dop", str(int(seed)), purpose, *(str(int(c)) for c in counters)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def stream(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator at the start of the stream (seed, purpose, counters).

    Draw initial points on the CPU and move them, so that they do not depend on the device.
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, purpose, *counters))


_GENERATOR_LOCK = RLock()
"""Lock of the global generators, for one thread at a time."""


@contextmanager
def use_stream(seed: int, purpose: Purpose, *counters: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Use the stream (seed, purpose, counters) as the global generator, for layers and other code that draws from it.

    The state of the generator is restored afterwards. Only one thread at a time can be inside such a block; other
    threads of the user that draw from the generator in the meantime are not blocked.

    Args:
        seed: seed of the problem.
        purpose: purpose of the numbers.
        counters: further integers, such as the iteration.
        device: device of the global generator.
    """
    with _GENERATOR_LOCK:
        yield from _lend_stream(stream_seed(seed, purpose, *counters), torch.device(device))


def _lend_stream(seed: int, kind: torch.device) -> Iterator[None]:
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
