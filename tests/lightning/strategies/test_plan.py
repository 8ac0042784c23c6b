"""How batches are dealt, and how large they are."""

import itertools
import random

import pytest

from dop_lightning.lightning.strategies.plan import Plan, deal, even_size


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_batch_belongs_to_one_rank(ranks: int) -> None:
    costs = [random.Random(k).random() for k in range(23)]
    hands = deal(costs, ranks)
    assert len(hands) == ranks
    assert sorted(itertools.chain(*hands)) == list(range(23))
    assert hands == deal(costs, ranks)


def test_the_load_is_within_a_third_of_the_best() -> None:
    for k in range(30):
        draw = random.Random(k)
        costs = [draw.randint(1, 9) for _ in range(7)]
        best = min(
            max(sum(c for c, r in zip(costs, ranks, strict=True) if r == rank) for rank in range(3))
            for ranks in itertools.product(range(3), repeat=7)
        )
        assert max(sum(costs[b] for b in hand) for hand in deal(costs, 3)) <= (4 / 3 - 1 / 9) * best + 1e-9


def test_finished_batches_are_distributed_too() -> None:
    assert deal([0, 0, 0, 0], 2) == [[0, 2], [1, 3]]
    assert deal([4, 0, 0, 1], 2) == [[0], [1, 2, 3]]


def test_more_ranks_than_batches() -> None:
    assert deal([1.0], 3) == [[0], [], []]
    assert deal([], 2) == [[], []]


@pytest.mark.parametrize("problems", [1, 7, 16, 1000])
@pytest.mark.parametrize("most", [1, 5, 300])
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_sizes_fit_into_memory_and_use_all_ranks(problems: int, most: int, ranks: int) -> None:
    size = even_size(problems, most, ranks)
    assert 1 <= size <= most
    batches = -(-problems // size)
    assert batches >= min(ranks, problems)
    assert problems - (batches - 1) * size > 0


def test_a_plan_survives_json() -> None:
    plan = Plan([["a", "b"], ["c"]], [[1], [0]])
    assert Plan(**plan.to_json()) == plan
