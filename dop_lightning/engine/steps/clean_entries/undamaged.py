"""Entries that the user knows to be uncorrupted.

Shapes: ``*m`` one observation.
"""

from torch import Tensor

from dop_lightning.problems.problem import Problem


def known_undamaged(problem: Problem) -> Tensor | None:
    """Return which observed entries are known to be uncorrupted, bool ``(*m)``; ``None`` if not specified."""
    known = problem.undamaged
    return known if known is None or problem.mask is None else known & problem.mask


def with_undamaged(clean: Tensor, problem: Problem) -> Tensor:
    """Set the probability of being clean to 1 for entries that are known to be uncorrupted.

    Args:
        clean: probability that each entry is clean, ``(*m)``, on any device.
        problem: the problem with the known entries.
    """
    known = known_undamaged(problem)
    return clean if known is None else clean.masked_fill(known.to(clean.device), 1)


def without_undamaged(corrupted: Tensor, problem: Problem) -> Tensor:
    """Set flags or probabilities of corruption, ``(*m)``, to 0 for entries that are known to be uncorrupted."""
    known = known_undamaged(problem)
    return corrupted if known is None else corrupted.masked_fill(known.to(corrupted.device), 0)
