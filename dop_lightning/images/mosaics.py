"""The recovery of a large image, blended from those of its tiles."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome, Status
from dop_lightning.images.tiles import Mosaic, Place
from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.scoring import Scorer

WORST_FIRST: tuple[Status, ...] = ("diverged", "interrupted", "running", "done", "stable")

ROUNDING = 1e-6
"""The sum of weights of tiles is 1 but for less than this."""


def combine(mosaic: Mosaic, outcomes: Mapping[Place, Outcome], metrics: CustomMetrics | None = None) -> Outcome:
    """Blend the tiles of an image, and score the whole.

    Its status is the worst of its tiles', its iterations the fewest, its seconds their sum, its loss their mean.

    Args:
        mosaic: the image and its tiles.
        outcomes: of every tile, by its (row, column). They are asked for one by one, and once for each of their
            tensors, so that a mapping that reads them from files holds one at a time.
        metrics: metrics of the user, computed on the whole image.
    """
    parts = [_Summary.of(outcome) for outcome in outcomes.values()]
    signal = mosaic.grid.blend(_Field(outcomes, lambda outcome: outcome.signal))
    corruption = mosaic.grid.blend(_Field(outcomes, lambda outcome: outcome.corruption))
    for x, s, y in zip(signal, corruption, mosaic.whole.observation, strict=True):  # channel by channel: less memory
        # what each tile has kept is blended of equal values, which rounding may have changed
        same = (s == 0) & ((x - y).abs_() < ROUNDING)
        x[same] = y[same]
    probability = _blended_probability(mosaic, outcomes, parts)
    losses = [part.loss for part in parts if part.loss is not None]
    loss = torch.tensor([sum(losses) / len(losses) if losses else float("nan")])
    has_corruption = parts[0].alpha is not None or parts[0].has_density  # filters have no α
    scorer = Scorer(ProblemBatch([mosaic.whole]), corruption=has_corruption, metrics=metrics)
    return Outcome(
        problem=mosaic.whole,
        status=min((part.status for part in parts), key=WORST_FIRST.index),
        iteration=min(part.iteration for part in parts),
        seconds=sum(part.seconds for part in parts),
        tau=parts[0].tau,
        alpha=parts[0].alpha,
        signal=signal,
        corruption=corruption,
        scores=scorer.final(signal[None], corruption[None], loss)[0],
        corruption_probability=probability,
    )


def _blended_probability(
    mosaic: Mosaic, outcomes: Mapping[Place, Outcome], parts: Sequence["_Summary"]
) -> Tensor | None:
    """That of the whole; ``None`` where a tile has none."""
    if not all(part.has_probability for part in parts):
        return None
    blended = mosaic.grid.blend(_Field(outcomes, _probability)).clamp_(0, 1)
    return blended if mosaic.whole.mask is None else blended.mul_(mosaic.whole.mask)


def _probability(outcome: Outcome) -> Tensor:
    if outcome.corruption_probability is None:
        raise ValueError(f"{outcome.problem.name}: the tile must have a probability, got none")
    return outcome.corruption_probability


class _Summary(NamedTuple):
    """What is kept of the outcome of a tile: no tensor."""

    status: Status
    iteration: int
    seconds: float
    tau: float
    alpha: float | None
    loss: float | None
    has_density: bool
    has_probability: bool

    @classmethod
    def of(cls, outcome: Outcome) -> "_Summary":
        return cls(
            status=outcome.status,
            iteration=outcome.iteration,
            seconds=outcome.seconds,
            tau=outcome.tau,
            alpha=outcome.alpha,
            loss=outcome.scores.get("loss"),
            has_density="corruption_density" in outcome.scores,
            has_probability=outcome.corruption_probability is not None,
        )


class _Field(Mapping[Place, Tensor]):
    """One tensor of each outcome, taken when it is asked for."""

    def __init__(self, outcomes: Mapping[Place, Outcome], take: Callable[[Outcome], Tensor]) -> None:
        self._outcomes = outcomes
        self._take = take

    def __getitem__(self, place: Place) -> Tensor:
        return self._take(self._outcomes[place])

    def __iter__(self) -> Iterator[Place]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)
