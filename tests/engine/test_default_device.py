"""Every method states the device of each tensor that it makes.

Lightning builds a method inside ``with torch.device(…)`` of its device. ``meta`` in its place shows a tensor that is
made without a device: it has no values, and an operation with one of the CPU is an error.
"""

import pytest
import torch

from dop_lightning.engine.state import State
from tests.suites.everywhere import CASES


def use(state: State) -> None:
    """All that a run asks of a batch."""
    for iterations in (1, 11):
        state.advance(iterations)
    state.finished()
    state.evaluate()
    saved = [state.problem_state(k) for k in range(len(state))]
    for k, each in enumerate(saved):
        state.load_problem_state(k, each)
    state.advance(1)
    state.select([0]).advance(1)


@pytest.mark.parametrize("name", CASES)
def test_default_device_has_no_effect(name: str) -> None:
    problems = CASES[name].problems()
    with torch.device("meta"):
        state = CASES[name].begin(problems=problems)
        use(state)
    assert state.problems.device.type == "cpu"
    assert all(bool(torch.isfinite(recovered).all()) for recovered in state.evaluate().signal)
