"""Views of a batch for listeners, at an evaluation and when problems end. Their contents are computed on first access.

Shapes: K problems of a batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from dop_lightning.engine.concurrency import threads_of
from dop_lightning.engine.outcome import Outcome, Record, Status
from dop_lightning.engine.state import Evaluation, State
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.scoring import Scorer

Scorers = Callable[[State], Scorer]
"""Returns the scorer of a batch."""


class EvaluatedBatch:
    """A batch at an evaluation. Evaluation and scores are computed on first access.

    Args:
        state: the batch.
        scorer: returns the scorer of a batch.
        evaluation: the evaluation, if it is already known.

    Attributes:
        state: the batch; read-only, do not advance it.
    """

    def __init__(self, state: State, scorer: Scorers, evaluation: Evaluation | None = None) -> None:
        self.state = state
        self._scorer = scorer
        self._probabilities: dict[int, Tensor | None] = {}
        if evaluation is not None:
            self.evaluation = evaluation

    @property
    def problems(self) -> ProblemBatch:
        """The problems of the batch."""
        return self.state.problems

    @property
    def iteration(self) -> int:
        """Number of iterations done."""
        known = self.__dict__.get("evaluation")
        return self.state.iteration if known is None else known.iteration

    @cached_property
    def evaluation(self) -> Evaluation:
        """X̂, ŝ and the loss."""
        with threads_of(self.state):
            return self.state.evaluate()

    @cached_property
    def scores(self) -> list[dict[str, float]]:
        """Scores for the curves, one mapping per problem."""
        seen = self.evaluation
        return self._scorer(self.state).curves(seen.signal, seen.corruption, seen.loss, seen.average)

    @torch.no_grad()
    def prepare(self, which: Iterable[int]) -> None:
        """Compute what the outcomes of the problems at the positions ``which`` need, apart from scores."""
        _ = self.evaluation
        for k in which:
            self.probability(k, self.iteration)

    def probability(self, k: int, iteration: int) -> Tensor | None:
        """Return the probability that each entry of problem k is corrupted; ``None`` if the method has none."""
        if k not in self._probabilities:
            with threads_of(self.state):
                self._probabilities[k] = self.state.corruption_probability(k, iteration)
        return self._probabilities[k]


class Ending(EvaluatedBatch):
    """Problems of a batch that end together, before they leave the batch.

    Args:
        state: the batch.
        scorer: returns the scorer of a batch.
        records: progress of each problem, by name.
        ends: status of each problem that ends, by its position in the batch.
        batch: an earlier view of the batch at the same iteration, if any; whatever it has computed is reused.
    """

    def __init__(
        self,
        state: State,
        scorer: Scorers,
        records: Mapping[str, Record],
        ends: Mapping[int, Status],
        batch: EvaluatedBatch | None = None,
    ) -> None:
        super().__init__(state, scorer)
        self.ends = dict(ends)
        self._records = records
        if batch is not None:
            self._probabilities = batch._probabilities
            self.__dict__.update(
                {key: batch.__dict__[key] for key in ("evaluation", "scores") if key in batch.__dict__}
            )

    @property
    def names(self) -> dict[int, str]:
        """Names of the problems that end, by position."""
        return {k: self.problems.names[k] for k in self.ends}

    @cached_property
    def final_scores(self) -> list[dict[str, float]]:
        """Final scores, one mapping per problem of the batch; custom metrics only for the problems that end."""
        seen, curves = self.evaluation, self.__dict__.get("scores")
        return self._scorer(self.state).final(seen.signal, seen.corruption, seen.loss, self.ends, curves)

    def outcomes(self, scores: Sequence[Mapping[str, float]] | None = None) -> Iterator[Outcome]:
        """Yield the outcome of each problem that ends.

        Args:
            scores: scores of each problem of the batch; by default :attr:`final_scores`.
        """
        state, seen = self.state, self.evaluation
        scores = self.final_scores if scores is None else scores
        for k, status in self.ends.items():
            record = self._records[state.problems.names[k]]
            yield Outcome(
                problem=state.problems[k],
                status=status,
                iteration=record.iteration,
                seconds=record.seconds,
                tau=state.tau[k],
                alpha=state.alpha[k] if state.has_ratio else None,
                signal=seen.signal[k].cpu(),
                corruption=seen.corruption[k].cpu(),
                scores=dict(scores[k]),
                corruption_probability=self.probability(k, record.iteration),
                report=state.report(k),
            )
