"""Which problems of a run go together, and which process works on which of them. Plain Python."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """The batches of a run, and how they are dealt.

    Attributes:
        batches: names of problems, batch by batch.
        ranks: positions in ``batches``, rank by rank; each batch belongs to one rank.
    """

    batches: list[list[str]]
    ranks: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """Lists alone."""
        return asdict(self)


def deal(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Deal batches to ranks, so that the rank with the most work has little more than the others.

    The costliest go first, each to the rank that has the least to do yet (of equals, that with the fewest batches, then
    the first): at most 4/3 of the best possible [Graham, 1969]. The same costs are dealt in the same way everywhere.

    Args:
        costs: of the batches, in any unit, at least 0.
        ranks: how many, at least 1.

    Returns:
        The positions of each rank's batches, in their order.

    >>> deal([5, 3, 3, 2, 2, 0], 2)
    [[0, 3, 5], [1, 2, 4]]
    """
    hands: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    for batch in sorted(range(len(costs)), key=lambda batch: (-costs[batch], batch)):
        rank = min(range(ranks), key=lambda rank: (loads[rank], len(hands[rank]), rank))
        hands[rank].append(batch)
        loads[rank] += costs[batch]
    return [sorted(hand) for hand in hands]


def even_size(problems: int, most: int, ranks: int) -> int:
    """The size of batches of about equal size, so that every rank gets as many as any other.

    Args:
        problems: of one shape, at least 1.
        most: problems in a batch that memory allows, at least 1.
        ranks: that share them, at least 1.

    >>> even_size(1000, 300, 2), even_size(10, 4, 1), even_size(3, 100, 8)
    (250, 4, 1)
    """
    batches = -(-problems // most)
    batches = -(-batches // ranks) * ranks
    return -(-problems // batches)
