"""What a checkpoint folder holds of a run, one batch at a time."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dop_lightning.engine.roster import Roster
from dop_lightning.problems.problem import Problem


class SavedBatches(Mapping[str, dict[str, dict[str, Any]]]):
    """Record and state of every problem, by batch and by name.

    A batch is copied when it is asked for, so that the copies of all batches need not fit in memory at once. Tiles, and
    problems that take turns, are left out while they have not begun, except in the first batch: a resumed run starts
    them anew.

    Args:
        roster: the problems.
        remembered: returns what callbacks remember of a problem, given its name.
        labels: of the batches; ``None`` for all.
    """

    def __init__(
        self,
        roster: Roster,
        remembered: Callable[[str], dict[str, Any]],
        labels: Collection[str] | None = None,
    ) -> None:
        self._roster = roster
        self._remembered = remembered
        self._names = {label: batch.names for label, batch in zip(roster.labels, roster.batches, strict=True)}
        self._labels = [
            label
            for place, (label, batch) in enumerate(zip(roster.labels, roster.batches, strict=True))
            if (labels is None or label in labels) and (place == 0 or not all(map(self._waits, batch)))
        ]

    def _waits(self, problem: Problem) -> bool:
        """Return whether a problem has not begun, and may be left out."""
        record = self._roster.records[problem.name]
        in_turn = problem.is_tile or self._roster.takes_turns(problem.name)
        return in_turn and record.iteration == 0 and not record.ended and record.status != "diverged"

    def __getitem__(self, label: str) -> dict[str, dict[str, Any]]:
        """Record and state of the problems of a batch, with what callbacks remember of them."""
        problems = self._roster.save_batch(label)
        return {name: {**saved, "callbacks": self._remembered(name)} for name, saved in problems.items()}

    def progress(self, label: str) -> dict[str, dict[str, Any]]:
        """Return the records of the problems of a batch, without their states."""
        return {name: self._roster.progress_of(name) for name in self._names[label]}

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the batches."""
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)
