"""The run loop: blocks of iterations, evaluations, and the ends of problems. Plain torch.

``DoubleOverparameterization``, ``recover_image``, ``RobustPCA``, the choice of α and the convex solvers all use it.
Files, progress bars and curves are implemented as listeners.

Shapes: K problems of a batch.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dop_lightning.engine.concurrency import ConcurrentBatches, concurrent_groups, threads_of
from dop_lightning.engine.evaluated import Ending, EvaluatedBatch
from dop_lightning.engine.outcome import Outcome, Record, Status
from dop_lightning.engine.roster import Roster
from dop_lightning.engine.state import AdvanceInterrupted, Evaluation, OutOfMemoryError, State
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.scoring import Scorer


class Listener:
    """Hooks that a run calls. They do nothing by default."""

    def on_states_change(self, run: "Run") -> None:
        """Called when the active batches have changed: batches began, one was split, or problems left.

        It is called once for all problems that leave in the same block or evaluation.
        """

    def on_turn(self, run: "Run", states: Sequence[State]) -> None:
        """Called before these batches do a block of iterations."""

    def on_block(self, run: "Run", state: State, iterations: int) -> None:
        """Called after a batch has done a block of iterations."""

    def on_evaluating(self, run: "Run") -> None:
        """Called when an evaluation begins."""

    def on_evaluation(self, run: "Run", batch: EvaluatedBatch) -> None:
        """Called for each batch of an evaluation. Call ``run.stop`` to end its problems after this evaluation."""

    def on_evaluated(self, run: "Run") -> None:
        """Called when an evaluation ends."""

    def on_end(self, run: "Run", ending: Ending) -> None:
        """Called when problems of a batch end, before they leave the batch."""

    def on_split(self, run: "Run", state: State, error: OutOfMemoryError) -> None:
        """Called when a batch does not fit in memory, before it is split in two halves."""


class Run:
    """Advances the batches of a roster in turns until all problems have ended.

    Problems end by a single mechanism, :meth:`stop`, for any reason: the step rule or solver has finished, a listener
    ends the problem, it diverged, or the maximum number of iterations is reached. After an interruption, the remaining
    problems stay active, so that they can be saved and resumed.

    Args:
        roster: the problems.
        block: iterations per turn, at least 1. It does not affect the results.
        evaluate_every: iterations between two evaluations, at least 1; ``None`` evaluates only at the end.
        maximum: maximum number of iterations per problem; -1 for no limit.
        grids: blocks also end at multiples of each of these, at least 1.
        listeners: objects that are notified of the progress, in this order.
        interrupted: called before each turn; the run ends when it returns true.
        metrics: custom metrics, see :class:`~dop_lightning.problems.custom_metrics.CustomMetrics`.

    Attributes:
        has_evaluated: whether the last step ended with an evaluation.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        block: int = 100,
        evaluate_every: int | None = None,
        maximum: int = -1,
        grids: Sequence[int] = (),
        listeners: Sequence[Listener] = (),
        interrupted: Callable[[], object] = lambda: False,
        metrics: CustomMetrics | Mapping[str, Callable[..., Any]] | Sequence[Callable[..., Any]] | None = None,
    ) -> None:
        self.roster = roster
        self.block = at_least("block", block, 1)
        self.evaluate_every = None if evaluate_every is None else at_least("evaluate_every", evaluate_every, 1)
        self.maximum = maximum
        self.grids = [at_least("grids", grid, 1) for grid in grids]
        self.listeners = list(listeners)
        self.has_evaluated = False
        self._interrupted = interrupted
        self.metrics = metrics if isinstance(metrics, CustomMetrics) else CustomMetrics(metrics)
        self._scorers: WeakKeyDictionary[State, Scorer] = WeakKeyDictionary()
        self._stopping: dict[str, Status] = {}
        self._going_back: dict[str, Mapping[str, Any]] = {}
        self._concurrent = ConcurrentBatches()
        self._have_states_changed = False

    @property
    def states(self) -> list[State]:
        """The active batches."""
        return self.roster.states

    @property
    def records(self) -> dict[str, Record]:
        """Progress of each problem, by name."""
        return self.roster.records

    @property
    def iteration(self) -> int:
        """Number of iterations that all unfinished problems have done."""
        return self.roster.iteration

    def scorer(self, state: State) -> Scorer:
        """Return the scorer of a batch. It is cached with its stacked truths while the batch is active."""
        known = self._scorers.get(state)
        if known is None or known.problems is not state.problems:
            known = self._scorers[state] = Scorer(state.problems, state.has_corruption, self.metrics)
        return known

    # ------------------------------------------------------------------------------------------------------ the loop

    def begin(self) -> None:
        """Activate all unfinished problems.

        Raises:
            ValueError: a custom metric fails on the initial state of a problem.
        """
        self._stopping, self._going_back = {}, {}
        self.roster.activate_unfinished(self.maximum)
        for state in self.states:
            state.resume()
        if self.metrics:
            self._check_metrics()
        self._notify_change()

    def _check_metrics(self) -> None:
        """Compute the custom metrics of one problem per shape, so that errors in them are raised before the run."""
        tried = set()
        for state in self.states:
            if state.problems[0].batch_key not in tried:
                tried.add(state.problems[0].batch_key)
                with_truth = (k for k, problem in enumerate(state.problems) if problem.truth is not None)
                alone = state.select([next(with_truth, 0)])
                seen = alone.evaluate()
                self.scorer(alone).curves(seen.signal, seen.corruption, seen.loss)

    def to_end(self) -> None:
        """Advance until all problems have ended, or until the run is interrupted."""
        while self.states:  # never empty while batches wait
            self.step()
            if self._interrupted():
                self.interrupt()
                return

    def step(self) -> int:
        """Do one block of iterations for each active batch, and return the increase of :attr:`iteration`."""
        start = self.iteration
        end = self.block_end(min((state.iteration for state in self.states), default=start))
        self.has_evaluated = False
        behind = [state for state in self.states if state.iteration < end]
        for turn in concurrent_groups(behind, torch.get_num_threads()):
            if self._interrupted():
                break  # there may be many batches; they can resume from different iterations
            self._advance(turn, end)
            active = {id(state) for state in self.states}
            self._end_finished([state for state in turn if id(state) in active], end)
        seen = {id(state) for state in behind}
        # batches that were ahead after an earlier run, and the rest of batches after a problem has diverged
        self._end_finished([state for state in self.states if id(state) not in seen], end)
        self._notify_changes()
        last, is_whole = end == self.maximum, all(state.iteration >= end for state in self.states)
        if is_whole and (last or (self.evaluate_every is not None and end % self.evaluate_every == 0)):
            self._evaluate(last, end)
            self.has_evaluated = True
        self._begin_waiting()
        return max(0, (self.iteration if self.states else end) - start)

    def _begin_waiting(self) -> None:
        """Replace tiles that have ended by waiting ones."""
        if self.roster.waiting and not self._interrupted():
            for state in self.roster.activate_waiting():
                state.resume()
                self._have_states_changed = True
            self._notify_changes()

    def _end_finished(self, states: Iterable[State], end: int) -> None:
        """Let finished problems leave the batches that are at iteration ``end``."""
        batches: list[EvaluatedBatch] = []
        for state in states:
            if state.iteration != end:
                continue
            for k, status in state.finished().items():
                name = state.problems.names[k]
                self.records[name].ended = True
                self.stop(name, status)
            if not self._stopping.keys().isdisjoint(state.problems.names):
                batches.append(EvaluatedBatch(state, self.scorer))
        self._prepare(batches)
        for batch in batches:
            self._end_stopped(batch.state, batch)

    def block_end(self, start: int) -> int:
        """Return the iteration at which a block that begins at iteration ``start`` ends.

        This is the next multiple of the block length, evaluation, iteration required by the step rule or a grid, or
        the last iteration, whichever comes first.
        """
        grids = (self.block, self.evaluate_every, self.roster.method.grid, *self.grids)
        ends = [start - start % every + every for every in grids if every is not None]
        first = self.roster.method.first
        if first is not None and start < first:
            ends.append(first)
        if self.maximum != -1:
            ends.append(self.maximum)
        return min(ends)

    def _advance(self, turn: Sequence[State], end: int) -> None:
        """Advance batches concurrently for one turn."""
        for listener in self.listeners:
            listener.on_turn(self, turn)
        before, begins = time.perf_counter(), [state.iteration for state in turn]
        advanced = self._concurrent.advance(turn, [max(0, end - begin) for begin in begins])
        if len(self.states) > 1:
            for state in turn:
                state.release()
        seconds = (time.perf_counter() - before) / len(turn)
        for state, at, outcome in zip(turn, begins, advanced, strict=True):
            if isinstance(outcome, OutOfMemoryError):
                self._split(state, outcome)  # the halves are advanced in the next step
            else:
                self._record_block(state, at, outcome, seconds)

    def _record_block(self, state: State, at: int, diverged: list[int], seconds: float) -> None:
        """Record a block of a batch that began at iteration ``at``, and notify the listeners."""
        for k, name in enumerate(state.problems.names):
            record = self.records[name]
            record.seconds += seconds / len(state)
            record.iteration = at if k in diverged else state.iteration
        if state.iteration > at:  # not if the batch was ahead after an earlier run
            for listener in self.listeners:
                listener.on_block(self, state, state.iteration - at)
        if diverged:
            for k in diverged:
                self.stop(state.problems.names[k], "diverged")
            reached, state.iteration = state.iteration, at  # diverged problems are scored in their restored state
            batch = EvaluatedBatch(state, self.scorer)
            _ = batch.evaluation
            state.iteration = reached
            self._end_stopped(state, batch, diverged)

    def _split(self, state: State, error: OutOfMemoryError) -> None:
        """Replace a batch by its halves, which does not affect the results."""
        if len(state) == 1:
            raise OutOfMemoryError(f"{state.problems.names[0]}: {error}") from error
        for listener in self.listeners:
            listener.on_split(self, state, error)
        self.roster.split(state)
        self._notify_change()
        if state.problems.device.type == "cuda":
            torch.cuda.empty_cache()

    def _evaluate(self, last: bool, end: int) -> None:
        """Notify the listeners of an evaluation of all active problems at iteration ``end``; if last, end them all."""
        for listener in self.listeners:
            listener.on_evaluating(self)
        # batches that were ahead after an earlier run have been evaluated, or are evaluated later
        due = [s for s in self.states if s.iteration == end and self.records[s.problems.names[0]].evaluated != end]
        for turn in concurrent_groups(due, torch.get_num_threads()):
            batches = [EvaluatedBatch(state, self.scorer) for state in turn]
            if last:
                for batch in batches:
                    for name in batch.problems.names:
                        self._stopping.setdefault(name, "done")
                self._prepare(batches)
            for batch in batches:
                self._evaluate_batch(batch, end)
        self._notify_changes()
        for listener in self.listeners:
            listener.on_evaluated(self)

    def _prepare(self, batches: Sequence[EvaluatedBatch]) -> None:
        """Compute the results of stopped problems concurrently, if several batches use one thread each."""
        self._concurrent.compute_ahead(
            [batch.state for batch in batches],
            [
                partial(batch.prepare, [k for k, name in enumerate(batch.problems.names) if name in self._stopping])
                for batch in batches
            ],
        )

    def _evaluate_batch(self, batch: EvaluatedBatch, end: int) -> None:
        """Notify the listeners of an evaluation of a batch, and end its stopped problems."""
        for name in batch.problems.names:
            self.records[name].evaluated = end
        for listener in self.listeners:
            listener.on_evaluation(self, batch)
        self._end_stopped(batch.state, batch)

    # ---------------------------------------------------------------------------------------------- ends of problems

    def stop(self, name: str, status: Status, state: Mapping[str, Any] | None = None) -> None:
        """End a problem after the current block or evaluation.

        Args:
            name: name of the problem.
            status: final status.
            state: earlier result of ``problem_state``, to end the problem in that state. All results, including the
                number of iterations, are then those of that iteration.

        Raises:
            ValueError: no active problem has this name.
        """
        if not any(name in active.problems.names for active in self.states):
            raise ValueError(f"name must be the name of an active problem, got {name!r}")
        self._stopping[name] = status
        if state is not None:
            self._going_back[name] = state

    def finish(self, for_good: bool = False) -> None:
        """End all active problems in their current state, as ``done``.

        Args:
            for_good: whether they stay ended if a later run allows more iterations.
        """
        while self.states:
            for state in self.states[:]:
                for name in state.problems.names:
                    self.records[name].ended = for_good
                    self.stop(name, "done")
                self._end_stopped(state, EvaluatedBatch(state, self.scorer))
            self._have_states_changed = bool(self.roster.activate_waiting()) or self._have_states_changed
        self._notify_changes()

    def abort_block(self) -> None:
        """Abort the current block; for signal handlers. Interrupted batches return to their state before the block.

        Raises:
            AdvanceInterrupted: a batch is being advanced in this thread; its method ``advance`` catches the error.
        """
        abort_block: AdvanceInterrupted | None = None
        for state in self.states:
            try:
                state.interrupt()
            except AdvanceInterrupted as error:
                abort_block = error
        if abort_block is not None:
            raise abort_block

    def interrupt(self) -> None:
        """End all active problems in their current state, as ``interrupted``. They stay in their batches."""
        for state in self.states[:]:
            for name in state.problems.names:
                self.records[name].status = "interrupted"
            ending = Ending(state, self.scorer, self.records, dict.fromkeys(range(len(state)), "interrupted"))
            for listener in self.listeners:
                listener.on_end(self, ending)
            if state.iteration > 0:
                state.release()
        for batch in self.roster.waiting:
            self.records[batch.names[0]].status = "interrupted"

    def _end_stopped(self, state: State, batch: EvaluatedBatch, which: Sequence[int] | None = None) -> None:
        """End the stopped problems of a batch, or only those at the positions ``which``."""
        names = state.problems.names
        places = range(len(state)) if which is None else which
        ends = {k: self._stopping.pop(names[k]) for k in places if names[k] in self._stopping}
        if not ends:
            return
        ending = Ending(state, self.scorer, self.records, ends, batch)
        if any(names[k] in self._going_back for k in ends):
            gone_back = EvaluatedBatch(state, self.scorer, self._restore_earlier(state, batch.evaluation, ends))
            ending = Ending(state, self.scorer, self.records, ends, gone_back)
        for k, status in ends.items():
            self.records[names[k]].status = status
        for listener in self.listeners:
            listener.on_end(self, ending)
        self.roster.remove(state, list(ends))
        self._scorers.pop(state, None)
        state.release()
        self._have_states_changed = True

    def _restore_earlier(self, state: State, evaluation: Evaluation, which: Iterable[int]) -> Evaluation:
        """Restore problems that end in an earlier state, and return the evaluation with their rows replaced."""
        rows: dict[str, Any] = {field.name: getattr(evaluation, field.name) for field in fields(evaluation)}
        rows = {key: value.clone() for key, value in rows.items() if isinstance(value, Tensor)}
        for k in which:
            name = state.problems.names[k]
            if name in self._going_back:
                earlier = self._going_back.pop(name)
                alone = state.select([k])
                alone.load_problem_state(0, earlier)
                alone.iteration = self.records[name].iteration = earlier["iteration"]
                state.load_problem_state(k, earlier)
                with threads_of(alone):
                    then = alone.evaluate()
                for key, of_problems in rows.items():
                    of_problems[k] = getattr(then, key)[0]
        return replace(evaluation, **rows)

    def _notify_changes(self) -> None:
        if self._have_states_changed:
            self._notify_change()

    def _notify_change(self) -> None:
        self._have_states_changed = False
        for listener in self.listeners:
            listener.on_states_change(self)

    def outcome_of(self, name: str) -> Outcome:
        """Return the outcome of one problem in its current state, active or not."""
        alone = self.roster.separate(name)
        return next(Ending(alone, self.scorer, self.records, {0: self.records[name].status}).outcomes())

    # Old names, until version 0.3.
    cut = RenamedAttribute("abort_block")
