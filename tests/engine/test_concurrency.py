"""Tiles side by side on a CPU: the same bits with any number of threads."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.concurrency import (
    FIRST_LOOKS,
    ConcurrentBatches,
    concurrent_batches,
    concurrent_groups,
    has_one_thread,
)
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.evaluated import Ending, EvaluatedBatch
from dop_lightning.engine.method import Method
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.runners import run_batches
from dop_lightning.engine.state import OutOfMemoryError, State
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.tiles import cut
from dop_lightning.model.signals import NetworkSignal
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import Scorer
from tests.engine.test_run import Counter, Counting


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def no_scorer(state: State) -> Scorer:
    raise AssertionError("nothing is scored here")


def tiles(size: tuple[int, int] = (16, 40)) -> list[Problem]:
    observation = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    mosaic = cut(Problem("photo", observation), 16, 4)
    assert mosaic is not None
    return list(mosaic.tiles.values())


def states(problems: Sequence[Problem]) -> list[BatchState]:
    method = PRESETS["quick"].method(2, "fp32")
    return [BatchState(method, ProblemBatch([problem]), 1.0, alpha=[100.0]) for problem in problems]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_bits_equal_those_of_one_thread(threads: int) -> None:
    torch.set_num_threads(1)
    alone = states(tiles())
    assert [state.advance(30) for state in alone] == [[]] * 3
    torch.set_num_threads(threads)
    together, at_work = ConcurrentBatches(), states(tiles())
    for end in (10, 30):
        for turn in concurrent_groups(at_work, threads):
            assert len(turn) <= (threads if end > 10 or threads == 1 else FIRST_LOOKS * threads)
            assert together.advance(turn, [end - state.iteration for state in turn]) == [[]] * len(turn)
    assert torch.get_num_threads() == threads
    for one, other in zip(alone, at_work, strict=True):
        assert other.iteration == 30
        assert torch.equal(one.evaluate().signal, other.evaluate().signal)
        assert torch.equal(one.memory["clean"], other.memory["clean"])


def test_turns_keep_the_order_and_group_tiles() -> None:
    first, second, third = states(tiles())
    (whole,) = states([Problem("whole", torch.rand(1, 40, 40))])
    for state in (first, second, third):
        state.iteration = 1
    assert [len(turn) for turn in concurrent_groups([first, second, third, whole], 2)] == [2, 1, 1]
    assert list(concurrent_groups([first, whole, second, third], 2)) == [[first], [whole], [second, third]]
    assert list(concurrent_groups([], 2)) == []


def test_more_tiles_than_threads_begin_together() -> None:
    """Most end at once, while others examine a region."""
    many = states(tiles((16, 200)))
    assert len(many) == 17
    assert [len(turn) for turn in concurrent_groups(many, 2)] == [FIRST_LOOKS * 2] * 2 + [1]
    assert [len(turn) for turn in concurrent_groups(many, 1)] == [1] * 17
    many[3].iteration = 5
    assert [len(turn) for turn in concurrent_groups(many, 2)] == [3, 1, 8, 5]


def test_large_tiles_and_whole_images_use_all_threads() -> None:
    torch.set_num_threads(3)
    assert concurrent_batches(states(tiles()[:1])[0]) == 3
    (whole,) = states([Problem("whole", torch.rand(1, 32, 33))])
    assert not has_one_thread(whole)
    large = Problem("large", torch.rand(1, 300, 300))
    (large,) = (replace(large, part=part.part) for part in tiles()[:1])
    assert concurrent_batches(states([large])[0]) == 1


def test_a_tiny_image_has_one_thread() -> None:
    tiny, other = states([Problem(name, torch.rand(1, 32, 32)) for name in ("tiny", "other")])
    assert has_one_thread(tiny)
    assert list(concurrent_groups([tiny, other], 2)) == [[tiny, other]]


def test_network_using_the_global_generator_runs_alone() -> None:
    def network(problems: ProblemBatch) -> NetworkSignal:
        return NetworkSignal(problems, lambda shape: torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 8, 8))

    state = BatchState(Method(network), ProblemBatch([Problem("own", torch.rand(1, 8, 8))]), 1.0, alpha=[1.0])
    assert not has_one_thread(state)


@pytest.mark.parametrize("size", [16, 40])
def test_an_evaluation_has_the_threads_of_an_advance(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    (state,) = states([Problem("photo", torch.rand(1, size, size))])
    seen = []
    monkeypatch.setattr(state, "evaluate", lambda: seen.append(torch.get_num_threads()))
    assert EvaluatedBatch(state, no_scorer).evaluation is None
    assert seen == [1 if size == 16 else 3]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("threads", [2, 5])
def test_a_tiny_image_has_the_bits_of_one_thread(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    problems = [Problem(name, torch.rand(1, 9, 12, generator=generator), seed=3) for name in "ab"]
    signals = []
    for count in (1, threads):
        torch.set_num_threads(count)
        at_work = states(problems)
        ConcurrentBatches().advance(at_work, [20, 20])
        signals.append([EvaluatedBatch(state, no_scorer).evaluation.signal for state in at_work])
    assert all(torch.equal(one, other) for one, other in zip(*signals, strict=True))


def test_results_of_ending_tiles_are_computed_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    probability = BatchState.corruption_probability

    def noting(state: BatchState, k: int, iteration: int) -> Tensor | None:
        seen.append((threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled()))
        return probability(state, k, iteration)

    class Outcomes(Listener):
        def __init__(self) -> None:
            self.maps: list[Tensor] = []

        def on_end(self, run: Run, ending: Ending) -> None:
            for outcome in ending.outcomes():
                maps = (outcome.signal, outcome.corruption, outcome.corruption_probability)
                self.maps.append(torch.stack([each for each in maps if each is not None]))

    monkeypatch.setattr(BatchState, "corruption_probability", noting)
    found = []
    for threads in (1, 2):
        seen.clear()
        torch.set_num_threads(threads)
        batches, outcomes = [ProblemBatch([tile]) for tile in tiles()], Outcomes()
        run_batches(
            PRESETS["quick"].method(2, "fp32"), batches, 30, block=10, listeners=[outcomes], tau=1.0, alpha=100.0
        )
        found.append(torch.stack(outcomes.maps))
        assert len(seen) == 3, "each once"
    assert all(name.startswith("tile") for name, _, _ in seen[:2])
    assert all(count == 1 for _, count, _ in seen)
    assert torch.equal(*found)


def test_tile_without_memory_does_not_affect_others(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr("dop_lightning.engine.concurrency.has_one_thread", lambda state: True)
    seen = set()

    class Noting(Counting):
        def advance(self, iterations: int) -> list[int]:
            seen.add(threading.current_thread().name)
            assert torch.get_num_threads() == 1
            return super().advance(iterations)

    counter = Counter()
    counter.most = 1
    one = Noting(ProblemBatch(tiles()[:1]), counter)
    two = Noting(ProblemBatch(tiles()[1:]), counter)
    became = ConcurrentBatches().advance([one, two], [5, 5])
    assert became[0] == []
    assert isinstance(became[1], OutOfMemoryError)
    assert one.iteration == 5
    assert two.iteration == 0
    assert all(name.startswith("tile") for name in seen)


def test_error_is_raised_after_all_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr("dop_lightning.engine.concurrency.has_one_thread", lambda state: True)

    class Failing(Counting):
        def advance(self, iterations: int) -> list[int]:
            raise ValueError("tau must be above 0")

    counter = Counter()
    bad, good = (kind(ProblemBatch(tiles()[:1]), counter) for kind in (Failing, Counting))
    with pytest.raises(ValueError, match="tau must be above 0"):
        ConcurrentBatches().advance([bad, good], [5, 5])
    assert good.iteration == 5
    assert torch.get_num_threads() == 2
