"""All problems of a run: how far each of them is, and the batches that are at work. Plain torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from dop_lightning.engine.outcome import Record, StoredState
from dop_lightning.engine.state import Procedure, State
from dop_lightning.problems.problem import Problem, ProblemBatch

TILES_AT_WORK = 16
"""Tiles, or images, that are at work at a time on a network each, and at least two per thread. It changes no result. A
network takes megabytes, and there may be thousands."""


class Roster:
    """Keeps a record of every problem, and works on those that are unfinished.

    A problem is in one of :attr:`states`, has left it, or waits for its turn. A batch at rest or the record of a
    problem that has left holds its state. Nothing that is saved depends on how problems were batched.

    If there are more tiles than ``at_once``, each in its own batch, the others wait. They begin when at most half of
    ``at_once`` are left at work. A tile that has ended is not kept in a batch at rest. With ``wholes`` the same holds
    of all problems that are a batch each.

    Args:
        method: begins batches: ``Method``, ``ConvexMethod``, ``FilterMethod``.
        batches: the problems of a run, or those of them that this process works on.
        tau: rate of θ: one number, one per problem in the order of the batches' list, or ``auto``.
        alpha: ratio of the rates, likewise; ``None`` is that of each problem, or the default of the engine.
        order: names of all problems of the run, in the order that lists of rates have.
        device: where batches work.
        labels: names of the batches, by which they are saved; by default their positions.
        dtype: type of all that is computed; by default that of the observations.
        keeps_states: whether the final state of a problem stays in its record when it leaves, to be saved or continued.
        at_once: maximum number of tiles at work, at least 1; ``None`` for all.
        wholes: whether problems that are no tiles take turns as well: their states must be saved as they end.

    Attributes:
        records: how far each problem is, by name.
        states: the batches at work.
        waiting: batches that are unfinished and wait for their turn, in this order.
        resting: batches that hold problems which are not at work: those that left together on a CPU, see also
            :meth:`rest`.

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
        dtype: torch.dtype | None = None,
        keeps_states: bool = True,
        at_once: int | None = None,
        wholes: bool = False,
    ) -> None:
        self.method = method
        self.batches = list(batches)
        self.labels = list(labels or batch_labels(range(len(self.batches))))
        self.device = device
        self.dtype = dtype
        self._keeps_states = keeps_states
        self._tau = None if isinstance(tau, str) else _one_a_problem("tau", tau, order)
        self._alpha = _one_a_problem("alpha", alpha, order)
        self._label_of = {
            name: label for label, batch in zip(self.labels, self.batches, strict=True) for name in batch.names
        }
        self.records = {name: Record() for name in order if name in self._label_of}
        alone = {batch.names[0] for batch in self.batches if len(batch) == 1 and (wholes or batch[0].is_tile)}
        self._at_once = len(self.batches) if at_once is None else at_once
        self._in_turn = alone if len(alone) > self._at_once else set()
        self._held: tuple[list[State], dict[str, tuple[State, int]]] = ([], {})
        self.states: list[State] = []
        self.resting: list[State] = []
        self.waiting: list[ProblemBatch] = []
        for batch in self.batches:
            if self.takes_turns(batch.names[0]) and len(self.states) >= self._at_once:
                self.waiting.append(batch)
            else:
                self.states.append(self._new_state(batch))

    def takes_turns(self, name: str) -> bool:
        """Return whether a problem is one of those of which only some are at work at a time."""
        return name in self._in_turn

    def _new_state(self, problems: ProblemBatch) -> State:
        """A batch at its start, where it is to run."""
        alpha: list[float] | None = None
        if self._alpha[problems.names[0]] is not None:
            alpha = [self._alpha[name] for name in problems.names]
        tau: list[float] | Literal["auto"] = "auto"
        if self._tau is not None:
            tau = [self._tau[name] for name in problems.names]
        return self.method.begin(problems.to(self.device, self.dtype), tau, alpha)

    def is_about(self, batches: Sequence[ProblemBatch]) -> bool:
        """Whether these are the same problems in the same batches: names, types and observations."""
        same_batches = [batch.names for batch in batches] == [batch.names for batch in self.batches]
        return same_batches and self.has_problems_of(batches)

    def has_problems_of(self, batches: Sequence[ProblemBatch]) -> bool:
        """Whether these are the same problems, in whatever batches."""
        own = {problem.name: problem for batch in self.batches for problem in batch}
        others = {problem.name: problem for batch in batches for problem in batch}
        return own.keys() == others.keys() and all(_is_same(own[name], other) for name, other in others.items())

    @property
    def iteration(self) -> int:
        """Iterations that every unfinished problem has behind it; if all are finished, that the furthest one has."""
        at_work = [state.iteration for state in self.states]
        if at_work or self.waiting:
            return min([*at_work, *(self.records[batch.names[0]].iteration for batch in self.waiting)])
        return max((record.iteration for record in self.records.values()), default=0)

    def unfinished(self) -> Iterator[tuple[ProblemBatch, int]]:
        """Yield the batches at work, then those that wait, each with its number of iterations."""
        yield from ((state.problems, state.iteration) for state in self.states)
        yield from ((batch, self.records[batch.names[0]].iteration) for batch in self.waiting)

    def work_on_unfinished(self, maximum: int) -> None:
        """Set to work the problems that are not finished, those that are equally far together.

        Args:
            maximum: iterations at which a problem is finished; -1 for no such number.
        """
        states: list[State] = []
        resting: list[State] = []
        for state in self.all_states():
            keep = [k for k, name in enumerate(state.problems.names) if not self.records[name].is_finished(maximum)]
            for name in (state.problems.names[k] for k in keep):
                self.records[name].status = "running"
                self.records[name].state = None
            if not keep and self._is_at_rest(state):
                resting.append(state)
                continue
            for k in set(range(len(state))) - set(keep) if self._keeps_states else ():
                if self.records[state.problems.names[k]].state is None:
                    self._remember(state, k)
            if keep:
                states.append(state if len(keep) == len(state) else state.select(keep))
        holders, waiting = self._holders(), []
        for batch in self.batches:
            name = batch.names[0]
            if self.takes_turns(name) and name not in holders and not self.records[name].is_finished(maximum):
                self.records[name].status = "running"
                waiting.append(batch)
        self.states, self.resting, self.waiting = states, resting, waiting
        self.begin_waiting()

    def begin_waiting(self) -> list[State]:
        """Set waiting tiles to work if at most half of those that may be at work are, and return them."""
        begun: list[State] = []
        if len(self.states) > self._at_once // 2:
            return begun
        while self.waiting and len(self.states) < self._at_once:
            batch = self.waiting.pop(0)
            record, state = self.records[batch.names[0]], self._new_state(batch)
            saved = record.loaded_state()
            if saved is not None:
                state.load_problem_state(0, saved)
            state.iteration, record.state = record.iteration, None
            begun.append(state)
            self.states.append(state)
        return begun

    def rest(self) -> None:
        """Let batches hold the problems that have left, so that their parameters can be seen. They stay at rest."""
        at_work, resting = {name for state in self.states for name in state.problems.names}, []
        for state in self.all_states():
            if not at_work & set(state.problems.names):
                resting.append(state)
                for name in state.problems.names:
                    self.records[name].state = None
        self.resting = resting

    def move(self, device: torch.device, dtype: torch.dtype | None) -> None:
        """Bring all batches to another device or type, where they continue.

        Args:
            device: where batches work.
            dtype: type of all that is computed; ``None`` is that of the observations.
        """
        self.device, self.dtype = device, dtype
        self.states = [self._moved(state) for state in self.states]
        self.resting = [self._moved(state) for state in self.resting]

    def _moved(self, state: State) -> State:
        problems = {problem.name: problem for batch in self.batches for problem in batch}
        moved = self._new_state(ProblemBatch([problems[name] for name in state.problems.names]))
        moved.iteration = state.iteration
        for k in range(len(state)):
            moved.load_problem_state(k, state.problem_state(k))
        return moved

    def all_states(self) -> list[State]:
        """Problems, at work or not, batched with those of their batch that are equally far.

        Tiles that take turns are left out unless they are at work.
        """
        holders = self._holders()
        batches = [batch for batch in self.batches if not self.takes_turns(batch.names[0]) or batch.names[0] in holders]
        return [state for batch in batches for state in self._states_of(batch, holders)]

    def _states_of(self, batch: ProblemBatch, holders: Mapping[str, tuple[State, int]]) -> Iterator[State]:
        """Yield the problems of a batch, those that are equally far together."""
        groups: dict[int, list[int]] = {}
        for k, name in enumerate(batch.names):
            iteration = holders[name][0].iteration if name in holders else self.records[name].iteration
            groups.setdefault(iteration, []).append(k)
        for iteration, members in sorted(groups.items()):
            group = batch.select(members)
            owner = holders.get(group.names[0], (None, 0))[0]
            if owner is not None and owner.problems.names == group.names:
                yield owner
                continue
            state = self._new_state(group)
            state.iteration = iteration
            for k, name in enumerate(group.names):
                saved = self._state_of(name, holders)
                if saved is not None:
                    state.load_problem_state(k, saved)
            yield state

    def alone(self, name: str) -> State:
        """One problem by itself, where it is."""
        batch = next(batch for batch in self.batches if name in batch.names)
        holders = self._holders()
        state = self._new_state(batch.select([batch.names.index(name)]))
        state.iteration = holders[name][0].iteration if name in holders else self.records[name].iteration
        saved = self._state_of(name, holders)
        if saved is not None:
            state.load_problem_state(0, saved)
        return state

    def leave(self, state: State, which: Sequence[int]) -> None:
        """Let the problems at the positions ``which`` leave a batch; the others go on in a smaller one.

        A batch that all of them leave on a CPU is kept as it is, which saves a copy of its state.
        """
        keep = [k for k in range(len(state)) if k not in which]
        if self._keeps_states and not keep and self._can_rest(state):
            self.resting.append(state)
        else:
            for k in which if self._keeps_states else ():
                self._remember(state, k)
        place = next(i for i, other in enumerate(self.states) if other is state)
        self.states[place : place + 1] = [state.select(keep)] if keep else []

    def _can_rest(self, state: State) -> bool:
        """Whether a batch can hold its problems at rest: on a GPU it would keep memory that others need."""
        if self.takes_turns(state.problems.names[0]):
            return False
        reached = {self.records[name].iteration for name in state.problems.names}
        return self.device.type == "cpu" and reached == {state.iteration}

    def _is_at_rest(self, state: State) -> bool:
        return self._can_rest(state) and any(state is other for other in self.resting)

    def _remember(self, state: State, k: int) -> None:
        """Keep the state of a problem in its record."""
        if self.takes_turns(state.problems.names[k]):
            state.release()
        record = self.records[state.problems.names[k]]
        record.state = {**state.problem_state(k), "iteration": record.iteration}

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
        return {label: self.save_batch(label) for label in self.labels}

    def put_away(self, name: str, stored: StoredState) -> None:
        """Replace the state in the record of a problem by what reads it, if there is one."""
        if self.records[name].state is not None:
            self.records[name].state = stored

    def kept(self) -> list[str]:
        """Return the names of problems that take turns whose records hold their states in memory."""
        return [name for name in self.records if name in self._in_turn and isinstance(self.records[name].state, dict)]

    def save_batch(self, label: str) -> dict[str, dict[str, Any]]:
        """Record and state of the problems of one batch, by name.

        Raises:
            KeyError: no batch has this label.
        """
        if label not in self.labels:
            raise KeyError(label)
        holders = self._holders()
        return {name: self._entry(name, holders) for name in self.batches[self.labels.index(label)].names}

    def progress_of(self, name: str) -> dict[str, Any]:
        """Return what is saved of a problem besides its state."""
        record = self.records[name]
        return {
            "status": record.status,
            "iteration": record.iteration,
            "evaluated": record.evaluated,
            "seconds": record.seconds,
            "ended": record.ended,
            "scores": dict(record.scores),
        }

    def has_left(self, name: str) -> bool:
        """Whether a problem has begun and is not at work."""
        return self.records[name].state is not None or any(name in state.problems.names for state in self.resting)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return what :meth:`save` gives, without the batches."""
        return {name: entry for problems in self.save().values() for name, entry in problems.items()}

    def replace(self, name: str, state: dict[str, Any] | None) -> None:
        """Put another state in the place of that of a problem, wherever it is held.

        Raises:
            ValueError: the state is of another method or shape.
        """
        holders = self._holders()
        if name in holders and state is not None:
            at, k = holders[name]
            at.load_problem_state(k, state)
        else:
            self.records[name].state = state

    def _entry(self, name: str, holders: Mapping[str, tuple[State, int]]) -> dict[str, Any]:
        return {**self.progress_of(name), "state": self._state_of(name, holders)}

    def load(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what :meth:`save` gave of each problem; one that is missing starts anew.

        Nothing is at work afterwards, see :meth:`work_on_unfinished`.
        """
        self.states, self.resting, self.waiting = [], [], []
        for name, record in self.records.items():
            if name in saved:
                entry = saved[name]
                record.status, record.seconds, record.state = entry["status"], entry["seconds"], entry["state"]
                record.iteration, record.evaluated = entry["iteration"], entry["evaluated"]
                record.ended, record.scores = entry["ended"], dict(entry.get("scores", {}))

    def _holders(self) -> dict[str, tuple[State, int]]:
        """The batch at work or at rest of each problem that is in one, with its position there."""
        held = [*self.states, *self.resting]
        before, holders = self._held
        if len(held) != len(before) or any(a is not b for a, b in zip(held, before, strict=True)):
            holders = {name: (state, k) for state in held for k, name in enumerate(state.problems.names)}
            self._held = held, holders
        return holders

    def _state_of(self, name: str, holders: Mapping[str, tuple[State, int]]) -> dict[str, Any] | None:
        if name in holders:
            state, k = holders[name]
            return {**state.problem_state(k), "iteration": state.iteration}
        if self.takes_turns(name) and self.records[name].state is None and self.records[name].iteration == 0:
            return self._waiting_state(name)
        return self.records[name].loaded_state()

    def _waiting_state(self, name: str) -> dict[str, Any]:
        """The state of a tile at its start."""
        batch = self.batches[self.labels.index(self._label_of[name])]
        return {**self._new_state(batch).problem_state(0), "iteration": 0}

    def parts(self) -> Iterator[torch.nn.Module]:
        """Signals and corruptions of the batches, at work and at rest."""
        for state in (*self.states, *self.resting):
            yield from state.modules


def _is_same(a: Problem, b: Problem) -> bool:
    return a is b or (a.dtype == b.dtype and torch.equal(a.observation, b.observation))


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
