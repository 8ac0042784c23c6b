"""The state of an optimizer, split by problem and combined again.

Shapes: the parameter ``stacked`` holds K problems, ``(K, 3)``; each of ``own`` belongs to one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD
from dop_lightning.engine.optim.state import load_optimizer_state, optimizer_state
from tests.suites.part import draw

OPTIMIZERS: dict[str, Callable[[Sequence[nn.Parameter]], Optimizer]] = {
    "adam": partial(torch.optim.Adam, lr=0.05),
    "amsgrad": partial(torch.optim.Adam, lr=0.05, amsgrad=True),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "plain": partial(torch.optim.SGD, lr=0.05),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.05, momentum=0.5),
    "discrepant": partial(DiscrepantSGD, lr=0.05),
}


class Problems:
    """K problems, each with a row of a stacked parameter and a separate parameter, and one optimizer of all."""

    def __init__(self, make: Callable[[Sequence[nn.Parameter]], Optimizer], seeds: Sequence[int]) -> None:
        self.stacked = nn.Parameter(torch.stack([draw(seed, (3,)) for seed in seeds]))
        self.own = [nn.Parameter(draw(seed + 100, (2, 2))) for seed in seeds]
        self.optimizer = make([self.stacked, *self.own])

    def owned(self, k: int) -> dict[nn.Parameter, tuple[str, int | None]]:
        return {self.stacked: ("stacked", k), self.own[k]: ("own", None)}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = (self.stacked.square().square() + self.stacked.sin()).sum()
            for p in self.own:
                loss = loss + (p.square() + p.cos()).sum()
            loss.backward()
            self.optimizer.step()

    def take(self, k: int, other: "Problems", j: int) -> None:
        """Problem k becomes problem j of ``other``."""
        with torch.no_grad():
            self.stacked[k] = other.stacked[j]
            self.own[k].copy_(other.own[j])
        load_optimizer_state(self.optimizer, self.owned(k), optimizer_state(other.optimizer, other.owned(j)))


@pytest.fixture(params=OPTIMIZERS)
def make(request: pytest.FixtureRequest) -> Callable[[Sequence[nn.Parameter]], Optimizer]:
    return OPTIMIZERS[request.param]


def assert_equal(one: Problems, k: int, other: Problems, j: int) -> None:
    assert torch.equal(one.stacked[k], other.stacked[j])
    assert torch.equal(one.own[k], other.own[j])


def test_all_problems_resume_bit_for_bit(make) -> None:
    whole, part = Problems(make, [1, 2, 3]), Problems(make, [1, 2, 3])
    whole.run(12)
    part.run(5)
    resumed = Problems(make, [7, 8, 9])
    for k in range(3):
        resumed.take(k, part, k)
    resumed.run(7)
    for k in range(3):
        assert_equal(resumed, k, whole, k)


def test_some_problems_resume_bit_for_bit_at_other_positions(make) -> None:
    whole, part = Problems(make, [1, 2, 3]), Problems(make, [1, 2, 3])
    whole.run(12)
    part.run(5)
    resumed = Problems(make, [7, 8])
    resumed.take(0, part, 2)
    resumed.take(1, part, 0)
    resumed.run(7)
    assert_equal(resumed, 0, whole, 2)
    assert_equal(resumed, 1, whole, 0)


def test_one_problem_of_an_active_optimizer_is_replaced(make) -> None:
    """Restore a problem while the others continue."""
    whole, part = Problems(make, [1, 2, 3]), Problems(make, [1, 2, 3])
    whole.run(12)
    part.run(5)
    other = Problems(make, [4, 2, 6])
    other.run(5)
    other.take(0, part, 0)
    other.run(7)
    alone = Problems(make, [4, 2, 6])
    alone.run(12)
    assert_equal(other, 0, whole, 0)
    assert_equal(other, 1, whole, 1)
    assert_equal(other, 2, alone, 2)


def test_state_is_a_copy(make) -> None:
    problems = Problems(make, [1, 2])
    problems.run(2)
    state = optimizer_state(problems.optimizer, problems.owned(1))
    before = {
        name: {key: torch.as_tensor(v).clone() for key, v in of.items() if v is not None} for name, of in state.items()
    }
    problems.run(2)
    for name, of in before.items():
        for key, value in of.items():
            assert torch.equal(torch.as_tensor(state[name][key]), value)


def test_state_of_one_problem_is_separate() -> None:
    problems = Problems(OPTIMIZERS["adam"], [1, 2])
    problems.run(2)
    state = optimizer_state(problems.optimizer, problems.owned(1))
    assert set(state) == {"stacked", "own"}
    assert state["stacked"]["exp_avg"].shape == (3,)
    assert state["own"]["exp_avg"].shape == (2, 2)
    assert torch.equal(state["stacked"]["exp_avg"], problems.optimizer.state[problems.stacked]["exp_avg"][1])
    assert float(state["own"]["step"]) == 2


def test_state_loads_with_weights_only(make, tmp_path) -> None:
    """Checkpoints must hold tensors and plain numbers only."""
    problems = Problems(make, [1, 2])
    problems.run(2)
    torch.save(optimizer_state(problems.optimizer, problems.owned(0)), tmp_path / "state.pt")
    torch.load(tmp_path / "state.pt", weights_only=True)


def test_unused_optimizer_has_no_state() -> None:
    problems = Problems(OPTIMIZERS["adam"], [1, 2])
    assert optimizer_state(problems.optimizer, problems.owned(0)) == {}
    load_optimizer_state(problems.optimizer, problems.owned(0), {})
    assert len(problems.optimizer.state) == 0


def test_optimizer_without_memory_has_no_state() -> None:
    problems = Problems(OPTIMIZERS["discrepant"], [1, 2])
    problems.run(3)
    assert optimizer_state(problems.optimizer, problems.owned(0)) == {}
