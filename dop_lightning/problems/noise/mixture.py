"""Mixture of several noises."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.problems.noise.base import Corrupted, Noise


class Mixture(Noise):
    """Apply noises in order, each to the result of the previous ones, with draws from one stream.

    The corruption is the gross part of all noises: outliers are added, and replacing an entry discards its previous
    value, including dense noise. Dense noise is never part of the corruption, whatever the order. Masks are
    intersected.

    Args:
        parts: list of at least one noise.

    Raises:
        ValueError: ``parts`` is empty, or contains an object that is not a noise.

    >>> from dop_lightning.problems.noise import GrossOutliers, MissingEntries
    >>> mixture = Mixture([GrossOutliers(0.1), MissingEntries(0.3)])
    >>> mixture.slug
    'gross-outliers-0.1_missing-entries-0.3'
    >>> mixture.attributes["noise"], mixture.attributes["missing_entries_ratio"]
    ('gross_outliers+missing_entries', 0.3)
    """

    name = "mixture"

    # annotated as a list, not a sequence, for parsing from YAML
    def __init__(self, parts: list[Noise]) -> None:
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Noise) for part in parts):
            raise ValueError(f"parts must be a list of at least one noise, got {parts!r}")
        self.parts = list(parts)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw the values of each part, in order."""
        for part in self.parts:
            running = part.apply(clean, running, generator)
        return running

    @property
    def attributes(self) -> dict[str, str | float]:
        """Columns for tables.

        ``noise`` joins the names of the parts. Parameters are prefixed by the name of their part, numbered if it occurs
        several times.
        """
        columns: dict[str, str | float] = {"noise": "+".join(str(part.attributes["noise"]) for part in self.parts)}
        seen: list[str] = []
        for part in self.parts:
            seen.append(part.name)
            times = seen.count(part.name)
            prefix = part.name if times == 1 else f"{part.name}_{times}"
            columns |= {f"{prefix}_{key}": value for key, value in part.attributes.items() if key != "noise"}
        return columns

    @property
    def slug(self) -> str:
        """Slugs of the parts, joined by ``_``."""
        return "_".join(part.slug for part in self.parts)
