"""Content of a checkpoint folder, one batch at a time."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dop_lightning.engine.roster import Roster
from dop_lightning.problems.problem import Problem


class SavedBatches(Mapping[str, dict[str, dict[str, Any]]]):
    """Record and state of every problem, by batch and by name.

    Batches are copied on access, so that the copies of all batches need not fit in memory together. Tiles, and problems
    that take turns, are skipped until they have started, except in the first batch: a resumed run starts them from the
    beginning.

    Args:
        roster: the problems.
        remembered: returns the states of callbacks for a problem, given its name.
        labels: labels of the batches; ``None`` for all.
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
            if (labels is None or label in labels) and (place == 0 or not all(map(self._is_waiting, batch)))
        ]

    def _is_waiting(self, problem: Problem) -> bool:
        """Return whether a problem has not started and can be skipped."""
        record = self._roster.records[problem.name]
        in_turn = problem.is_tile or self._roster.waits_for_turn(problem.name)
        return in_turn and record.iteration == 0 and not record.ended and record.status != "diverged"

    def __getitem__(self, label: str) -> dict[str, dict[str, Any]]:
        """Return record and state of the problems of a batch, including the states of callbacks."""
        problems = self._roster.save_batch(label)
        return {name: {**saved, "callbacks": self._remembered(name)} for name, saved in problems.items()}

    def progress(self, label: str) -> dict[str, dict[str, Any]]:
        """Return the records of the problems of a batch, without their states."""
        return {name: self._roster.progress_of(name) for name in self._names[label]}

    def __iter__(self) -> Iterator[str]:
        """Yield the labels of the batches."""
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)
