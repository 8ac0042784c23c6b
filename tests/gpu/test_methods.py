"""Every method on a GPU: the values of the CPU, no host synchronisation in a block, few launches, legal captures."""

import warnings

import pytest
import torch

from dop_lightning.engine.state import State
from dop_lightning.engine.steps.clean_entries.dust import _specks
from dop_lightning.engine.steps.clean_entries.places import place_evidence
from tests.pretend_cuda.checks import ON_PRETENDED, watched
from tests.suites.everywhere import CASES

NETWORKS = [name for name, case in CASES.items() if case.captured]
AT_THE_END = 4
"""Host synchronisations at the end of a block, at most."""


def advanced(state: State, *blocks: int) -> State:
    for iterations in blocks:
        state.advance(iterations)
    return state


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_method_gives_the_same_on_a_gpu(name: str) -> None:
    case = CASES[name]
    problems = case.problems()
    with torch.device("cuda"):  # as Lightning does
        there = case.begin("cuda", problems)
    here = case.begin()
    blocks = (2, 3) if case.tau == 0.5 else (5, 7)
    for state in (here, there):
        advanced(state, *blocks)
    assert there.problems.device.type == "cuda"
    one, other = here.evaluate(), there.evaluate()
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if case.tau == 0.5 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(other.signal.cpu(), one.signal, **tolerance)
    assert here.finished().keys() == there.finished().keys()
    for k in range(len(here)):  # states move between devices
        here.load_problem_state(k, there.problem_state(k))
        there.load_problem_state(k, here.problem_state(k))
    advanced(there.select([0]), 1)


@pytest.mark.parametrize("name", CASES)
class TestBlocks:
    pytestmark = ON_PRETENDED

    def test_host_synchronises_at_the_end_of_a_block_only(self, name: str) -> None:
        case = CASES[name]
        state = advanced(case.begin("cuda"), 1)
        waits, launches = [], []
        for iterations in (3, 9):
            with watched() as seen:
                state.advance(iterations)
            waits.append(seen)
            launches.append(seen.launched)
        in_an_iteration = (len(waits[1].waits) - len(waits[0].waits)) / 6
        at_the_end = len(waits[0].waits) - 3 * in_an_iteration
        assert in_an_iteration <= case.waits, waits[1].listed
        assert case.waits or at_the_end <= AT_THE_END, waits[0].listed
        assert (launches[1] - launches[0]) / 6 <= case.launches, waits[1].launches.most_common(8)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_iterations_of_networks_are_captured(name: str) -> None:
    case = CASES[name]
    state = case.begin("cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advanced(state, 26, 4)
    assert state.loop.holds_graph
    assert bool(torch.isfinite(state.evaluate().loss).all())


@pytest.mark.parametrize("name", NETWORKS)
class TestReplays:
    pytestmark = ON_PRETENDED

    def test_an_iteration_is_one_launch_of_a_graph(self, name: str) -> None:
        state = advanced(CASES[name].begin("cuda"), 30)
        with watched() as seen:
            state.advance(10)
        assert seen.launches["graph"] == 10


@pytest.mark.gpu
def test_places_are_compared_under_deterministic_algorithms() -> None:
    y = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    estimate = torch.full_like(y, 0.5)
    far, observed = (y - estimate).abs() > 0.3, torch.ones_like(y, dtype=torch.bool)
    arrays = [each.to("cuda") for each in (y, estimate, far, torch.rand_like(y), observed)]
    torch.use_deterministic_algorithms(True)
    try:
        found = place_evidence(*arrays, torch.Generator().manual_seed(0))
    finally:
        torch.use_deterministic_algorithms(False)
    here = place_evidence(*(each.cpu() for each in arrays), torch.Generator().manual_seed(0))
    assert found.share == pytest.approx(here.share)


@pytest.mark.gpu
def test_specks_are_detected_on_a_gpu() -> None:
    y = torch.full((3, 40, 40), 0.3)
    y[:, 10:14, 10:14] = y[:, 25:29, 25:29] = 0.9
    known = torch.ones(40, 40, dtype=torch.bool)
    here, there = (_specks((z - 0.3).mean(dim=0), z, 0.2, known.to(z.device)) for z in (y, y.to("cuda")))
    assert bool(here.any())
    assert torch.equal(there.cpu(), here)
