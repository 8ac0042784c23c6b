"""The scores of images at work by iteration, and what becomes of them."""

from collections.abc import Mapping, Sequence

from dop_lightning.engine.look import Ending, Look
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import State
from dop_lightning.images.progress import Tell

EVERY = 50
"""Iterations between two entries of a history: an evaluation takes less than half an iteration."""

History = dict[str, list[float]]
"""Numbers by tag; ``iteration`` says when, and all lists are equally long."""

Curve = dict[int, dict[str, float]]
"""Scores by iteration."""


class HistoryListener(Listener):
    """Follows images that are recovered one per batch.

    Args:
        maximum: iterations of each.
        tell: called with iterations that are done away with, and the last scores.

    Attributes:
        curves: of each problem, by name.
        outcomes: of the problems that have ended, by name.
    """

    def __init__(self, maximum: int, tell: Tell) -> None:
        self.curves: dict[str, Curve] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._maximum = maximum
        self._tell = tell

    def on_block(self, run: Run, state: State, iterations: int) -> None:
        """Move the bar on."""
        curve = self.curves.get(state.problems.names[0], {})
        self._tell(iterations, next(reversed(curve.values()), {}))

    def on_evaluation(self, run: Run, look: Look) -> None:
        """Take the scores in."""
        self._note(look)

    def _note(self, look: Look) -> None:
        for name, scores in zip(look.problems.names, look.scores, strict=True):
            self.curves.setdefault(name, {})[look.evaluation.iteration] = scores

    def on_end(self, run: Run, ending: Ending) -> None:
        """Take the last scores in. What was interrupted before its first iteration has no outcome."""
        for k, name in ending.names.items():
            if ending.ends[k] == "interrupted" and run.records[name].iteration == 0:
                return
        self._note(ending)
        done_away = 0 if "interrupted" in ending.ends.values() else self._maximum - ending.state.iteration
        self._tell(done_away, ending.scores[next(iter(ending.ends))])
        for outcome in ending.outcomes(ending.scores):
            self.outcomes[outcome.problem.name] = outcome


def mean_history(curves: Sequence[Mapping[int, Mapping[str, float]]]) -> History:
    """Return scores by iteration; of several curves their mean, those that have ended as they ended.

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
