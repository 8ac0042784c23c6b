"""Looks at batches that no run made."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from dop_lightning.engine.state import Evaluation
from dop_lightning.problems.problem import ProblemBatch


def look_at(
    problems: ProblemBatch,
    evaluation: Evaluation,
    scores: Sequence[Mapping[str, float]] | None = None,
    state: Any = None,
) -> Any:
    """What callbacks see of a batch at an evaluation."""
    return SimpleNamespace(
        problems=problems,
        iteration=evaluation.iteration,
        evaluation=evaluation,
        scores=[{} for _ in problems] if scores is None else scores,
        state=state,
    )
