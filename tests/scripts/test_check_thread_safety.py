"""Calls from several threads, as in ``scripts/check_thread_safety.py`` but fewer."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

SCRIPT = "check_thread_safety"


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """With one, there is no number of threads to get wrong."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_four_threads_have_the_bits_of_one(script: ModuleType) -> None:
    works = [script.WORKS[k] for k in (0, 3)]
    assert script.differing(threads=3, calls=2, works=works) == []


def test_differences_are_named(script: ModuleType) -> None:
    results = iter([b"sequential", b"another"])
    assert script.differing(1, 1, [lambda: next(results)]) == ["work 0 in thread 0"]


def test_change_of_global_state_is_detected(script: ModuleType) -> None:
    assert script.differing(1, 1, [lambda: bytes(torch.rand(1) > 2)]) == ["the settings of the process"]
