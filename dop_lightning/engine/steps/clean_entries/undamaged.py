"""Entries that the user knows to be uncorrupted.

Shapes: ``*m`` one observation.
"""

from torch import Tensor

from dop_lightning.problems.problem import Problem


def known_undamaged(problem: Problem) -> Tensor | None:
    """Return the observed entries that are known to be uncorrupted, bool ``(*m)``; ``None`` if there are none."""
    known = problem.undamaged
    return known if known is None or problem.mask is None else known & problem.mask


def with_undamaged(clean: Tensor, problem: Problem) -> Tensor:
    """Return the probability that each entry is clean, 1 for the entries that are known to be uncorrupted.

    Args:
        clean: ``(*m)``, on any device.
        problem: that knows them.
    """
    known = known_undamaged(problem)
    return clean if known is None else clean.masked_fill(known.to(clean.device), 1)


def without_undamaged(corrupted: Tensor, problem: Problem) -> Tensor:
    """Return flags or probabilities of corruption, ``(*m)``, 0 for the entries that are known to be uncorrupted."""
    known = known_undamaged(problem)
    return corrupted if known is None else corrupted.masked_fill(known.to(corrupted.device), 0)
