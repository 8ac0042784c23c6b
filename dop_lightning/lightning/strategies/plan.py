"""Assignment of problems to batches, and of batches to processes. Plain Python."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """The batches of a run, and their assignment to processes.

    Attributes:
        batches: names of the problems of each batch.
        ranks: positions in ``batches`` for each rank; each batch belongs to one rank.
    """

    batches: list[list[str]]
    ranks: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as dictionaries and lists."""
        return asdict(self)


def deal(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Assign batches to ranks with balanced costs.

    Batches are assigned in order of decreasing cost, each to the rank with the least total cost so far (ties: the
    fewest batches, then the lowest rank). The largest total is at most 4/3 of the optimum [Graham, 1969]. The result is
    deterministic.

    Args:
        costs: costs of the batches, in any unit, non-negative.
        ranks: number of ranks, at least 1.

    Returns:
        The positions of each rank's batches, in increasing order.

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
    """Return a batch size that gives each rank the same number of about equally large batches.

    Args:
        problems: number of problems of one shape, at least 1.
        most: maximum number of problems in a batch, at least 1.
        ranks: number of ranks, at least 1.

    >>> even_size(1000, 300, 2), even_size(10, 4, 1), even_size(3, 100, 8)
    (250, 4, 1)
    """
    batches = -(-problems // most)
    batches = -(-batches // ranks) * ranks
    return -(-problems // batches)
