"""Find host synchronisations and launches on the simulated device."""

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
    """Events during a block.

    Attributes:
        waits: waits of the host for the device.
        launches: numbers of launched kernels, by operation.
    """

    waits: list[Wait] = field(default_factory=list)
    launches: Counter = field(default_factory=Counter)

    @property
    def launched(self) -> int:
        """Number of launched kernels."""
        return sum(self.launches.values())

    @property
    def listed(self) -> str:
        """The waits, one per line."""
        return "\n".join(f"{wait.place}: {wait.kind}, {wait.operation}" for wait in self.waits)


@contextmanager
def watched() -> Iterator[Seen]:
    """Record the waits and launches of the device in the block."""
    seen, first, before = Seen(), len(device.library.waits), device.launches()
    yield seen
    seen.waits = device.library.waits[first:]
    seen.launches = device.launches() - before


def is_pretended() -> bool:
    """Whether this process uses the simulated device."""
    return device.library.handle is not None


ON_PRETENDED = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.is_available() and not is_pretended(), reason="a real device does not record it"),
]
"""Marks of tests that read the records of the simulated device."""
