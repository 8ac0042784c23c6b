"""All problems of a run: how far each of them is, and the batches that are at work. Plain torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from dop_lightning.engine.outcome import Record
from dop_lightning.engine.state import Procedure, State
from dop_lightning.problems.problem import ProblemBatch


class Roster:
    """Keeps a record of every problem, and works on those that are unfinished.

    A problem is either in one of :attr:`states`, or has left it and its record holds its state. Nothing that is saved
    depends on how problems were batched.

    Args:
        method: begins batches: ``Method``, ``ConvexMethod``.
        batches: the problems of a run, or those of them that this process works on.
        tau: rate of θ: one number, one per problem in the order of the batches' list, or ``auto``.
        alpha: ratio of the rates, likewise; ``None`` is that of each problem, or the default of the engine.
        order: names of all problems of the run, in the order that lists of rates have.
        device: where batches work.
        labels: names of the batches, by which they are saved; by default their positions.
        keeps_states: whether the final state of a problem stays in its record when it leaves, to be saved or continued.

    Raises:
        ValueError: a list of rates has another length.
    """

    def __init__(
        self,
        method: Procedure,
        batches: Sequence[ProblemBatch],
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None,
        order: Sequence[str],
        device: torch.device,
        labels: Sequence[str] | None = None,
        keeps_states: bool = True,
    ) -> None:
        self.method = method
        self.batches = list(batches)
        self.labels = list(labels or batch_labels(range(len(self.batches))))
        self.device = device
        self._keeps_states = keeps_states
        self._tau = None if isinstance(tau, str) else _one_a_problem("tau", tau, order)
        self._alpha = _one_a_problem("alpha", alpha, order)
        self._label_of = {
            name: label for label, batch in zip(self.labels, self.batches, strict=True) for name in batch.names
        }
        self.records = {name: Record() for name in order if name in self._label_of}
        self.states: list[State] = [self._new_state(batch) for batch in batches]

    def _new_state(self, problems: ProblemBatch) -> State:
        """A batch at its start, where it is to run."""
        alpha: list[float] | None = None
        if self._alpha[problems.names[0]] is not None:
            alpha = [self._alpha[name] for name in problems.names]
        tau: list[float] | Literal["auto"] = "auto"
        if self._tau is not None:
            tau = [self._tau[name] for name in problems.names]
        return self.method.begin(problems.to(self.device), tau, alpha)

    def is_about(self, batches: Sequence[ProblemBatch]) -> bool:
        """Whether these are the same problems: names and observations."""
        return [batch.names for batch in batches] == [batch.names for batch in self.batches] and all(
            torch.equal(a.observation, b.observation) for a, b in zip(batches, self.batches, strict=True)
        )

    @property
    def iteration(self) -> int:
        """Iterations that every problem at work has behind it; with none at work, that the furthest one has."""
        if self.states:
            return min(state.iteration for state in self.states)
        return max((record.iteration for record in self.records.values()), default=0)

    def work_on_unfinished(self, maximum: int) -> None:
        """Set to work the problems that are not finished, those that are equally far together.

        Args:
            maximum: iterations at which a problem is finished; -1 for no such number.
        """
        states: list[State] = []
        for state in self.all_states():
            keep = [k for k, name in enumerate(state.problems.names) if not self.records[name].is_finished(maximum)]
            for name in (state.problems.names[k] for k in keep):
                self.records[name].status = "running"
                self.records[name].state = None
            if keep:
                states.append(state if len(keep) == len(state) else state.select(keep))
        self.states = states

    def all_states(self) -> list[State]:
        """Every problem, at work or not, batched with those of its batch that are equally far."""
        at_work = self._at_work()
        states: list[State] = []
        for batch in self.batches:
            groups: dict[int, list[int]] = {}
            for k, name in enumerate(batch.names):
                iteration = at_work[name][0].iteration if name in at_work else self.records[name].iteration
                groups.setdefault(iteration, []).append(k)
            for iteration, members in sorted(groups.items()):
                group = batch.select(members)
                owner = at_work.get(group.names[0], (None, 0))[0]
                if owner is not None and owner.problems.names == group.names:
                    states.append(owner)
                    continue
                state = self._new_state(group)
                state.iteration = iteration
                for k, name in enumerate(group.names):
                    saved = self._state_of(name, at_work)
                    if saved is not None:
                        state.load_problem_state(k, saved)
                states.append(state)
        return states

    def alone(self, name: str) -> State:
        """One problem by itself, where it is."""
        batch = next(batch for batch in self.batches if name in batch.names)
        at_work = self._at_work()
        state = self._new_state(batch.select([batch.names.index(name)]))
        state.iteration = at_work[name][0].iteration if name in at_work else self.records[name].iteration
        saved = self._state_of(name, at_work)
        if saved is not None:
            state.load_problem_state(0, saved)
        return state

    def leave(self, state: State, which: Sequence[int]) -> None:
        """Let the problems at the positions ``which`` leave a batch; the others go on in a smaller one."""
        for k in which if self._keeps_states else ():
            record = self.records[state.problems.names[k]]
            record.state = {**state.problem_state(k), "iteration": record.iteration}
        keep = [k for k in range(len(state)) if k not in which]
        place = next(i for i, other in enumerate(self.states) if other is state)
        self.states[place : place + 1] = [state.select(keep)] if keep else []

    def split(self, state: State) -> None:
        """Let a batch go on as two halves.

        Raises:
            ValueError: it is one problem.
        """
        if len(state) == 1:
            raise ValueError(f"{state.problems.names[0]}: a batch of one problem cannot be split")
        half = (len(state) + 1) // 2
        place = next(i for i, other in enumerate(self.states) if other is state)
        self.states[place : place + 1] = [state.select(range(half)), state.select(range(half, len(state)))]

    def label_of(self, name: str) -> str:
        """The batch that a problem belongs to, whether it is at work or not."""
        return self._label_of[name]

    def save(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Record and state of every problem, batch by batch: tensors on the CPU and plain numbers."""
        at_work = self._at_work()
        return {
            label: {name: self._entry(name, at_work) for name in batch.names}
            for label, batch in zip(self.labels, self.batches, strict=True)
        }

    def _entry(self, name: str, at_work: Mapping[str, tuple[State, int]]) -> dict[str, Any]:
        record = self.records[name]
        return {
            "status": record.status,
            "iteration": record.iteration,
            "evaluated": record.evaluated,
            "seconds": record.seconds,
            "ended": record.ended,
            "state": self._state_of(name, at_work),
        }

    def load(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what :meth:`save` gave of each problem; one that is missing starts anew.

        Nothing is at work afterwards, see :meth:`work_on_unfinished`.
        """
        self.states = []
        for name, record in self.records.items():
            if name in saved:
                entry = saved[name]
                record.status, record.seconds, record.state = entry["status"], entry["seconds"], entry["state"]
                record.iteration, record.evaluated = entry["iteration"], entry["evaluated"]
                record.ended = entry["ended"]

    def _at_work(self) -> dict[str, tuple[State, int]]:
        return {name: (state, k) for state in self.states for k, name in enumerate(state.problems.names)}

    def _state_of(self, name: str, at_work: Mapping[str, tuple[State, int]]) -> dict[str, Any] | None:
        if name in at_work:
            state, k = at_work[name]
            return state.problem_state(k)
        return self.records[name].state

    def parts(self) -> Iterator[torch.nn.Module]:
        """Signals and corruptions at work."""
        for state in self.states:
            yield from state.modules


def batch_labels(positions: Iterable[int]) -> list[str]:
    """The names of the batches at these positions of a run's list.

    >>> batch_labels([0, 12])
    ['batch-0000', 'batch-0012']
    """
    return [f"batch-{position:04d}" for position in positions]


def _one_a_problem(name: str, value: Any, order: Sequence[str]) -> dict[str, Any]:
    values = list(value) if isinstance(value, Sequence) else [value] * len(order)
    if len(values) != len(order):
        raise ValueError(f"{name} must be one number, or one per problem ({len(order)}), got {len(values)} numbers")
    return dict(zip(order, values, strict=True))
