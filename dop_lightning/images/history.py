"""Scores of images by iteration, and the outcomes of images."""

from collections.abc import Mapping, Sequence

from dop_lightning.engine.evaluated import Ending, EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import State
from dop_lightning.images.progress import Report

ITERATIONS_PER_ENTRY = 50
"""Iterations between two entries of a history: an evaluation takes less than half an iteration."""

History = dict[str, list[float]]
"""Lists of numbers by tag, all of the same length; ``iteration`` holds the iterations of the entries."""

Curve = dict[int, dict[str, float]]
"""Scores by iteration."""


class HistoryListener(Listener):
    """Records scores and outcomes of images that are recovered in batches of one.

    Args:
        maximum: maximum number of iterations per image.
        report: called with the number of iterations that are done or no longer needed, and the latest scores.

    Attributes:
        curves: scores of each problem by iteration, by name.
        outcomes: outcomes of finished problems, by name.
    """

    def __init__(self, maximum: int, report: Report) -> None:
        self.curves: dict[str, Curve] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._maximum = maximum
        self._report = report

    def on_block(self, run: Run, state: State, iterations: int) -> None:
        """Advance the progress bar."""
        curve = self.curves.get(state.problems.names[0], {})
        self._report(iterations, next(reversed(curve.values()), {}))

    def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
        """Record the scores."""
        self._record(batch)

    def _record(self, batch: EvaluatedBatch) -> None:
        for name, scores in zip(batch.problems.names, batch.scores, strict=True):
            self.curves.setdefault(name, {})[batch.evaluation.iteration] = scores

    def on_end(self, run: Run, ending: Ending) -> None:
        """Record the last scores and the outcome. Images interrupted before their first iteration have no outcome."""
        for k, name in ending.names.items():
            if ending.ends[k] == "interrupted" and run.records[name].iteration == 0:
                return
        self._record(ending)
        done_away = 0 if "interrupted" in ending.ends.values() else self._maximum - ending.state.iteration
        self._report(done_away, ending.scores[next(iter(ending.ends))])
        for outcome in ending.outcomes(ending.scores):
            self.outcomes[outcome.problem.name] = outcome


def mean_history(curves: Sequence[Mapping[int, Mapping[str, float]]]) -> History:
    """Return the mean of several curves of scores; curves that have ended contribute their last scores.

    >>> mean_history([{25: {"loss": 4.0}, 50: {"loss": 2.0}}, {25: {"loss": 1.0}}])
    {'iteration': [25, 50], 'loss': [2.5, 1.5]}
    """
    iterations = sorted({iteration for curve in curves for iteration in curve})
    tags = list(next(iter(curves[0].values())))
    history: History = {"iteration": list(iterations), **{tag: [] for tag in tags}}
    for iteration in iterations:
        known = [curve[max((i for i in curve if i <= iteration), default=min(curve))] for curve in curves]
        for tag in tags:
            values = [scores[tag] for scores in known if tag in scores]
            history[tag].append(sum(values) / len(values) if values else float("nan"))
    return history
