"""All problems of a run: the progress of each, and the active batches. Plain torch."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from dop_lightning.engine.outcome import Record, StoredState
from dop_lightning.engine.state import Procedure, State
from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.problems.problem import Problem, ProblemBatch

TILES_AT_WORK = 16
"""Maximum number of active tiles or images, each with a network; at least two per thread are allowed. A network takes
megabytes, and there may be thousands of tiles. The number does not affect the results."""


class Roster:
    """Keeps a record of every problem, and the batches of unfinished problems.

    A problem is in one of the active batches :attr:`states`, has left its batch, or waits for its turn. The state of a
    problem that has left is in a resting batch or in its record. Saved data do not depend on the batching.

    If there are more tiles than ``at_once``, each in a separate batch, the others wait. They begin when at most half of
    ``at_once`` are still active. Tiles that have ended are not kept in resting batches. With ``wholes``, the same
    applies to all problems in batches of one.

    Args:
        method: creates the states of batches: ``Method``, ``ConvexMethod`` or ``FilterMethod``.
        batches: the problems of the run, or of this process.
        tau: learning rate of θ: one number, one per problem in the order of ``order``, or ``auto``.
        alpha: ratio of the learning rates, likewise; ``None`` uses those of the problems, or the default of the engine.
        order: names of all problems of the run, in the order of ``tau`` and ``alpha``.
        device: device of the batches.
        labels: names under which the batches are saved; by default from their positions.
        dtype: type of all computations; by default that of the observations.
        keeps_states: whether the final state of a problem is kept when it leaves its batch, to be saved or continued.
        at_once: maximum number of active tiles, at least 1; ``None`` for no limit.
        wholes: whether problems that are not tiles take turns as well. Their states must be saved when they end.

    Attributes:
        records: progress of each problem, by name.
        states: the active batches.
        waiting: unfinished batches that wait for their turn, in this order.
        resting: batches of problems that are not active: those that left together on a CPU, see also
            :meth:`deactivate`.

    Raises:
        ValueError: a list of rates has the wrong length.
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
        self._tau = None if isinstance(tau, str) else _per_problem("tau", tau, order)
        self._alpha = _per_problem("alpha", alpha, order)
        self._label_of = {
            name: label for label, batch in zip(self.labels, self.batches, strict=True) for name in batch.names
        }
        self.records = {name: Record() for name in order if name in self._label_of}
        separate = {batch.names[0] for batch in self.batches if len(batch) == 1 and (wholes or batch[0].is_tile)}
        self._at_once = len(self.batches) if at_once is None else at_once
        self._in_turn = separate if len(separate) > self._at_once else set()
        self._held: tuple[list[State], dict[str, tuple[State, int]]] = ([], {})
        self.states: list[State] = []
        self.resting: list[State] = []
        self.waiting: list[ProblemBatch] = []
        for batch in self.batches:
            if self.waits_for_turn(batch.names[0]) and len(self.states) >= self._at_once:
                self.waiting.append(batch)
            else:
                self.states.append(self._new_state(batch))

    def waits_for_turn(self, name: str) -> bool:
        """Return whether a problem waits for its turn if too many others are active."""
        return name in self._in_turn

    def _new_state(self, problems: ProblemBatch) -> State:
        """Return the initial state of a batch, on the device of the run."""
        alpha: list[float] | None = None
        if self._alpha[problems.names[0]] is not None:
            alpha = [self._alpha[name] for name in problems.names]
        tau: list[float] | Literal["auto"] = "auto"
        if self._tau is not None:
            tau = [self._tau[name] for name in problems.names]
        return self.method.begin(problems.to(self.device, self.dtype), tau, alpha)

    def matches(self, batches: Sequence[ProblemBatch]) -> bool:
        """Return whether these are the same problems in the same batches: names, types and observations."""
        same_batches = [batch.names for batch in batches] == [batch.names for batch in self.batches]
        return same_batches and self.has_problems_of(batches)

    def has_problems_of(self, batches: Sequence[ProblemBatch]) -> bool:
        """Return whether these are the same problems, regardless of the batches."""
        own = {problem.name: problem for batch in self.batches for problem in batch}
        others = {problem.name: problem for batch in batches for problem in batch}
        return own.keys() == others.keys() and all(_is_same_problem(own[name], other) for name, other in others.items())

    @property
    def iteration(self) -> int:
        """Minimum number of iterations done over the unfinished problems; if there are none, the maximum over all."""
        iterations = [state.iteration for state in self.states]
        if iterations or self.waiting:
            return min([*iterations, *(self.records[batch.names[0]].iteration for batch in self.waiting)])
        return max((record.iteration for record in self.records.values()), default=0)

    def unfinished(self) -> Iterator[tuple[ProblemBatch, int]]:
        """Yield the active batches, then the waiting ones, each with its number of iterations."""
        yield from ((state.problems, state.iteration) for state in self.states)
        yield from ((batch, self.records[batch.names[0]].iteration) for batch in self.waiting)

    def activate_unfinished(self, maximum: int) -> None:
        """Activate all unfinished problems. Problems of a batch with the same iteration stay together.

        Args:
            maximum: number of iterations after which a problem is finished; -1 for no limit.
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
                    self._record(state, k)
            if keep:
                states.append(state if len(keep) == len(state) else state.select(keep))
        holders, waiting = self._states_by_problem(), []
        for batch in self.batches:
            name = batch.names[0]
            if self.waits_for_turn(name) and name not in holders and not self.records[name].is_finished(maximum):
                self.records[name].status = "running"
                waiting.append(batch)
        self.states, self.resting, self.waiting = states, resting, waiting
        self.activate_waiting()

    def activate_waiting(self) -> list[State]:
        """Activate waiting tiles if at most half of the maximum number are active, and return them."""
        started: list[State] = []
        if len(self.states) > self._at_once // 2:
            return started
        while self.waiting and len(self.states) < self._at_once:
            batch = self.waiting.pop(0)
            record, state = self.records[batch.names[0]], self._new_state(batch)
            saved = record.loaded_state()
            if saved is not None:
                state.load_problem_state(0, saved)
            state.iteration, record.state = record.iteration, None
            started.append(state)
            self.states.append(state)
        return started

    def deactivate(self) -> None:
        """Move problems that have left from their records to resting batches, to give access to their parameters."""
        active, resting = {name for state in self.states for name in state.problems.names}, []
        for state in self.all_states():
            if not active & set(state.problems.names):
                resting.append(state)
                for name in state.problems.names:
                    self.records[name].state = None
        self.resting = resting

    def move(self, device: torch.device, dtype: torch.dtype | None) -> None:
        """Move all batches to another device or type.

        Args:
            device: device of the batches.
            dtype: type of all computations; ``None`` for that of the observations.
        """
        self.device, self.dtype = device, dtype
        self.states = [self._to_device(state) for state in self.states]
        self.resting = [self._to_device(state) for state in self.resting]

    def _to_device(self, state: State) -> State:
        problems = {problem.name: problem for batch in self.batches for problem in batch}
        moved = self._new_state(ProblemBatch([problems[name] for name in state.problems.names]))
        moved.iteration = state.iteration
        for k in range(len(state)):
            moved.load_problem_state(k, state.problem_state(k))
        return moved

    def all_states(self) -> list[State]:
        """Return all problems, active or not. Problems of a batch with the same iteration are in one state.

        Tiles that take turns are included only if they are active.
        """
        holders = self._states_by_problem()
        batches = [
            batch for batch in self.batches if not self.waits_for_turn(batch.names[0]) or batch.names[0] in holders
        ]
        return [state for batch in batches for state in self._states_of(batch, holders)]

    def _states_of(self, batch: ProblemBatch, holders: Mapping[str, tuple[State, int]]) -> Iterator[State]:
        """Yield the problems of a batch, one state per iteration reached."""
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

    def separate(self, name: str) -> State:
        """Return one problem as a separate batch, in its current state."""
        batch = next(batch for batch in self.batches if name in batch.names)
        holders = self._states_by_problem()
        state = self._new_state(batch.select([batch.names.index(name)]))
        state.iteration = holders[name][0].iteration if name in holders else self.records[name].iteration
        saved = self._state_of(name, holders)
        if saved is not None:
            state.load_problem_state(0, saved)
        return state

    def remove(self, state: State, which: Sequence[int]) -> None:
        """Remove the problems at the positions ``which`` from a batch; the others continue in a smaller one.

        On a CPU, a batch that all problems leave is kept, which avoids a copy of its state.
        """
        keep = [k for k in range(len(state)) if k not in which]
        if self._keeps_states and not keep and self._can_rest(state):
            self.resting.append(state)
        else:
            for k in which if self._keeps_states else ():
                self._record(state, k)
        place = next(i for i, other in enumerate(self.states) if other is state)
        self.states[place : place + 1] = [state.select(keep)] if keep else []

    def _can_rest(self, state: State) -> bool:
        """Return whether a batch can be kept as resting. On a GPU, it would keep memory that others need."""
        if self.waits_for_turn(state.problems.names[0]):
            return False
        reached = {self.records[name].iteration for name in state.problems.names}
        return self.device.type == "cpu" and reached == {state.iteration}

    def _is_at_rest(self, state: State) -> bool:
        return self._can_rest(state) and any(state is other for other in self.resting)

    def _record(self, state: State, k: int) -> None:
        """Copy the state of a problem to its record."""
        if self.waits_for_turn(state.problems.names[k]):
            state.release()
        record = self.records[state.problems.names[k]]
        record.state = {**state.problem_state(k), "iteration": record.iteration}

    def split(self, state: State) -> None:
        """Replace a batch by two halves.

        Raises:
            ValueError: the batch has only one problem.
        """
        if len(state) == 1:
            raise ValueError(f"{state.problems.names[0]}: a batch of one problem cannot be split")
        half = (len(state) + 1) // 2
        place = next(i for i, other in enumerate(self.states) if other is state)
        self.states[place : place + 1] = [state.select(range(half)), state.select(range(half, len(state)))]

    def label_of(self, name: str) -> str:
        """Return the label of the batch that a problem belongs to, active or not."""
        return self._label_of[name]

    def save(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return record and state of every problem, by batch label and name: tensors on the CPU and plain numbers."""
        return {label: self.save_batch(label) for label in self.labels}

    def store_state(self, name: str, stored: StoredState) -> None:
        """Replace the state in the record of a problem, if any, by its stored copy."""
        if self.records[name].state is not None:
            self.records[name].state = stored

    def kept(self) -> list[str]:
        """Return the names of the problems that take turns and whose states are held in memory by their records."""
        return [name for name in self.records if name in self._in_turn and isinstance(self.records[name].state, dict)]

    def save_batch(self, label: str) -> dict[str, dict[str, Any]]:
        """Return record and state of the problems of one batch, by name.

        Raises:
            KeyError: no batch has this label.
        """
        if label not in self.labels:
            raise KeyError(label)
        holders = self._states_by_problem()
        return {name: self._checkpoint_entry(name, holders) for name in self.batches[self.labels.index(label)].names}

    def progress_of(self, name: str) -> dict[str, Any]:
        """Return the saved data of a problem without its state."""
        record = self.records[name]
        return {
            "status": record.status,
            "iteration": record.iteration,
            "evaluated": record.evaluated,
            "seconds": record.seconds,
            "ended": record.ended,
            "scores": dict(record.scores),
        }

    def is_inactive(self, name: str) -> bool:
        """Return whether a problem has begun and is not active."""
        return self.records[name].state is not None or any(name in state.problems.names for state in self.resting)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return the result of :meth:`save` by name, not grouped by batch."""
        return {name: entry for problems in self.save().values() for name, entry in problems.items()}

    def replace(self, name: str, state: dict[str, Any] | None) -> None:
        """Replace the state of a problem, in its batch or in its record.

        Raises:
            ValueError: the state has another method or shape.
        """
        holders = self._states_by_problem()
        if name in holders and state is not None:
            at, k = holders[name]
            at.load_problem_state(k, state)
        else:
            self.records[name].state = state

    def _checkpoint_entry(self, name: str, holders: Mapping[str, tuple[State, int]]) -> dict[str, Any]:
        return {**self.progress_of(name), "state": self._state_of(name, holders)}

    def load(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Load saved records and states by name, see :meth:`entries`. Missing problems keep their current records.

        No problem is active afterwards; call :meth:`activate_unfinished`.
        """
        self.states, self.resting, self.waiting = [], [], []
        for name, record in self.records.items():
            if name in saved:
                entry = saved[name]
                record.status, record.seconds, record.state = entry["status"], entry["seconds"], entry["state"]
                record.iteration, record.evaluated = entry["iteration"], entry["evaluated"]
                record.ended, record.scores = entry["ended"], dict(entry.get("scores", {}))

    def _states_by_problem(self) -> dict[str, tuple[State, int]]:
        """Return the active or resting batch of each problem that is in one, with its position in the batch."""
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
        if self.waits_for_turn(name) and self.records[name].state is None and self.records[name].iteration == 0:
            return self._waiting_state(name)
        return self.records[name].loaded_state()

    def _waiting_state(self, name: str) -> dict[str, Any]:
        """Return the initial state of a tile."""
        batch = self.batches[self.labels.index(self._label_of[name])]
        return {**self._new_state(batch).problem_state(0), "iteration": 0}

    def parts(self) -> Iterator[torch.nn.Module]:
        """Yield the signals and corruptions of the active and resting batches."""
        for state in (*self.states, *self.resting):
            yield from state.modules

    # Old names, until version 0.3.
    takes_turns = RenamedAttribute("waits_for_turn")
    is_about = RenamedAttribute("matches")
    work_on_unfinished = RenamedAttribute("activate_unfinished")
    begin_waiting = RenamedAttribute("activate_waiting")
    rest = RenamedAttribute("deactivate")
    alone = RenamedAttribute("separate")
    leave = RenamedAttribute("remove")
    put_away = RenamedAttribute("store_state")
    has_left = RenamedAttribute("is_inactive")


def _is_same_problem(a: Problem, b: Problem) -> bool:
    return a is b or (a.dtype == b.dtype and torch.equal(a.observation, b.observation))


def batch_labels(positions: Iterable[int]) -> list[str]:
    """Return the labels of the batches at these positions in the list of a run.

    >>> batch_labels([0, 12])
    ['batch-0000', 'batch-0012']
    """
    return [sys.intern(f"batch-{position:04d}") for position in positions]  # thousands, each in memory once


def _per_problem(name: str, value: Any, order: Sequence[str]) -> dict[str, Any]:
    values = list(value) if isinstance(value, Sequence) else [value] * len(order)
    if len(values) != len(order):
        raise ValueError(f"{name} must be one number, or one per problem ({len(order)}), got {len(values)} numbers")
    return dict(zip(order, values, strict=True))
