"""Memory of a GPU: free memory, out-of-memory errors, and batches that are split in halves."""

import warnings

import pytest
import torch

from dop_lightning.engine.measure import working_memory
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.foundation.machine import available_memory
from tests.pretend_cuda import device
from tests.pretend_cuda.checks import ON_PRETENDED
from tests.suites.everywhere import CASES


@pytest.mark.gpu
def test_unused_reserved_memory_is_free() -> None:
    before = available_memory("cuda")
    held = torch.empty(2**24, dtype=torch.uint8, device="cuda")
    assert available_memory("cuda") <= before - 2**24 + 2**21
    del held  # its block stays reserved
    assert available_memory("cuda") >= before - 2**21


class TestPretended:
    pytestmark = ON_PRETENDED

    def test_the_working_memory_is_the_peak_of_an_iteration(self) -> None:
        case = CASES["network"]
        one, two = (working_memory(case.begin("cuda", case.problems()[:size])) for size in (1, 2))
        assert 1.5 * one < two < 2.5 * one

    def test_out_of_memory_is_reported_and_restores_the_batch(self) -> None:
        case = CASES["network"]
        state = case.begin("cuda")
        state.advance(2)
        before, least = state.problem_state(0), torch.cuda.memory_allocated()
        with device.limited_memory(least + 2**14), pytest.raises(OutOfMemoryError, match="out of memory with 2"):
            state.advance(40)
        assert_same(state.problem_state(0), before)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state.advance(40)
        assert state.loop.holds_graph


def assert_same(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
