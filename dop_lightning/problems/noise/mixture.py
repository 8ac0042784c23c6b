"""Several noises one after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.problems.noise.base import Corrupted, Noise


class Mixture(Noise):
    """Noises applied in order, each to what the ones before it made of the signal, from one stream.

    The corruption is the gross part of all of them together: outliers add up, a replaced entry forgets what was there
    before (dense noise too), dense noise never counts, wherever it stands in the order. The masks are intersected.

    Args:
        parts: the noises, at least one.

    Raises:
        ValueError: ``parts`` is empty or holds something else.

    >>> from dop_lightning.problems.noise import GrossOutliers, MissingEntries
    >>> mixture = Mixture([GrossOutliers(0.1), MissingEntries(0.3)])
    >>> mixture.slug
    'gross-outliers-0.1_missing-entries-0.3'
    >>> mixture.attributes["noise"], mixture.attributes["missing_entries_ratio"]
    ('gross_outliers+missing_entries', 0.3)
    """

    name = "mixture"

    # a list, not a sequence: this is the type that a YAML file is read against
    def __init__(self, parts: list[Noise]) -> None:
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Noise) for part in parts):
            raise ValueError(f"parts must be a list of at least one noise, got {parts!r}")
        self.parts = list(parts)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """What each part draws, in order."""
        for part in self.parts:
            running = part.apply(clean, running, generator)
        return running

    @property
    def attributes(self) -> dict[str, str | float]:
        """``noise`` joins the names; a parameter bears its part's name, and its number where a name comes again."""
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
        """The slugs of the parts, joined by ``_``."""
        return "_".join(part.slug for part in self.parts)
