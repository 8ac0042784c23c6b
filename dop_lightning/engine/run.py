"""The iterations of one problem, or of the tiles of a large one in turns, by the engine alone.

The blocks are those of :class:`~dop_lightning.lightning.module.DoubleOverparameterization`: same problems, same bits.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import torch

from dop_lightning.engine.outcome import Outcome, Status
from dop_lightning.engine.state import BatchState, Evaluation, Method, OutOfMemoryError
from dop_lightning.images.presets import TAU
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import Scorer

EVERY = 25
"""Iterations between two entries of a history: an evaluation takes less than half an iteration."""

History = dict[str, list[float]]
"""Numbers by tag; ``iteration`` tells when, and all lists are equally long."""


class Part:
    """One problem at work, until it ends.

    Args:
        problem: what to recover.
        method: how.
        alpha: ratio of the rates; ``None`` is the default of the problem.
        device: where.

    Attributes:
        curve: scores by iteration.
        outcome: what it has become, once it has ended.
    """

    def __init__(self, problem: Problem, method: Method, alpha: float | None, device: torch.device) -> None:
        problems = ProblemBatch([problem], device)
        self.problem = problem
        self.curve: dict[int, dict[str, float]] = {}
        self.outcome: Outcome | None = None
        self._state: BatchState | None = BatchState(method, problems, TAU, alpha)
        self._scorer = Scorer(problems)
        self._seconds = 0.0

    @property
    def iteration(self) -> int:
        """Gradient iterations done."""
        return self._at_work.iteration if self.outcome is None else self.outcome.iteration

    @property
    def _at_work(self) -> BatchState:
        assert self._state is not None, "it has ended"
        return self._state

    def advance(self, end: int, maximum: int) -> None:
        """One block of iterations, up to ``end``; it may end there."""
        state = self._at_work
        before, at = time.perf_counter(), state.iteration
        diverged = state.advance(end - at)
        self._seconds += time.perf_counter() - before
        if diverged:
            state.iteration = at  # it is back there
            self.end("diverged")
        elif finished := state.finished():
            self.end(finished[0])
        elif end == maximum:
            self.end("done")
        elif end % EVERY == 0:
            self._look()

    def _look(self) -> Evaluation:
        evaluation = self._at_work.evaluate()
        scores = self._scorer.curves(evaluation.signal, evaluation.corruption, evaluation.loss)
        self.curve[evaluation.iteration] = scores[0]
        return evaluation

    def end(self, status: Status) -> Outcome:
        """End it here, and let go of the state."""
        state, evaluation = self._at_work, self._look()
        self.outcome = Outcome(
            problem=self.problem,
            status=status,
            iteration=state.iteration,
            seconds=self._seconds,
            tau=state.tau[0],
            alpha=state.alpha[0],
            signal=evaluation.signal[0].cpu(),
            corruption=evaluation.corruption[0].cpu(),
            scores=self.curve[state.iteration],
        )
        state.release()
        self._state = None
        return self.outcome

    def release(self) -> None:
        """Let go of what can be made anew."""
        if self._state is not None:
            self._state.release()


def do_work(
    parts: Sequence[Part],
    maximum: int,
    block: int,
    grid: int | None,
    stop: Callable[[], bool],
    tell: Callable[[int, Mapping[str, float]], None],
) -> list[Outcome]:
    """Do the iterations of all parts, in turns.

    Args:
        parts: at their start.
        maximum: iterations of each.
        block: iterations of a turn, at most.
        grid: iterations between those at which the step rule looks at its problem.
        stop: whether to make an end of it, asked after each turn.
        tell: called after each turn with the iterations that it has done away with, and the last scores.

    Returns:
        The outcomes, in order.

    Raises:
        KeyboardInterrupt: to stop was asked before each part had its first turn: there is nothing to give.
        OutOfMemoryError: a part takes more memory than there is.
    """
    start = 0
    while at_work := [part for part in parts if part.outcome is None]:
        grids = (block, EVERY, grid)
        end = min([start - start % every + every for every in grids if every is not None] + [maximum])
        for part in at_work:
            _take_turn(part, end, maximum)
            if len(parts) > 1:
                part.release()
            done = end if part.outcome is None else maximum
            tell(done - start, next(reversed(part.curve.values()), {}))
            if stop():
                return _stopped(parts)
        start = end
    return [part.outcome for part in parts if part.outcome is not None]


def _take_turn(part: Part, end: int, maximum: int) -> None:
    try:
        part.advance(end, maximum)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{part.problem.name}: {error}; a smaller tile, or a smaller width, takes less"
        ) from None


def _stopped(parts: Sequence[Part]) -> list[Outcome]:
    if any(part.outcome is None and part.iteration == 0 for part in parts):
        raise KeyboardInterrupt
    return [part.outcome or part.end("interrupted") for part in parts]


def history_of(parts: Sequence[Part]) -> History:
    """The scores of all parts by iteration; of several, their mean, those that have ended as they ended.

    >>> one, two = Part.__new__(Part), Part.__new__(Part)
    >>> one.curve, two.curve = {25: {"loss": 4.0}, 50: {"loss": 2.0}}, {25: {"loss": 1.0}}
    >>> history_of([one, two])
    {'iteration': [25, 50], 'loss': [2.5, 1.5]}
    """
    iterations = sorted({iteration for part in parts for iteration in part.curve})
    tags = list(next(iter(parts[0].curve.values())))
    history: History = {"iteration": list(iterations), **{tag: [] for tag in tags}}
    for iteration in iterations:
        known = [part.curve[max((i for i in part.curve if i <= iteration), default=min(part.curve))] for part in parts]
        for tag in tags:
            values = [scores[tag] for scores in known if tag in scores]
            history[tag].append(sum(values) / len(values) if values else float("nan"))
    return history
