"""Operators A: how an observation is made of a signal."""

from dop_lightning.operators.base import Identity, Operator
from dop_lightning.operators.entry_mask import EntryMask
from dop_lightning.problems import ProblemBatch

__all__ = ["EntryMask", "Identity", "Operator", "observed_entries"]


def observed_entries(problems: ProblemBatch) -> Operator:
    """The operator of most problems: the identity, or the entry mask where some entries were not observed."""
    return Identity(problems) if problems.mask is None else EntryMask(problems)
