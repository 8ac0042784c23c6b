"""What a GPU is slow at, seen on the pretended device: waits of the host, and launches."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch

from tests.pretend_cuda import device
from tests.pretend_cuda.device import Wait


@dataclass
class Seen:
    """What happened in a block.

    Attributes:
        waits: of the host for the device.
        launches: of kernels, by operation.
    """

    waits: list[Wait] = field(default_factory=list)
    launches: Counter = field(default_factory=Counter)

    @property
    def launched(self) -> int:
        """How many kernels were launched."""
        return sum(self.launches.values())

    @property
    def listed(self) -> str:
        """The waits, a line each."""
        return "\n".join(f"{wait.place}: {wait.kind}, {wait.operation}" for wait in self.waits)


@contextmanager
def watched() -> Iterator[Seen]:
    """Note what the device does in the block."""
    seen, first, before = Seen(), len(device.library.waits), device.launches()
    yield seen
    seen.waits = device.library.waits[first:]
    seen.launches = device.launches() - before


def is_pretended() -> bool:
    """Whether this process has the pretended device."""
    return device.library.handle is not None


ON_PRETENDED = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.is_available() and not is_pretended(), reason="a real device does not note it"),
]
"""Marks of tests that look at what the pretended device has noted."""
