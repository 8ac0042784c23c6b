"""Combine the recoveries of tiles into the recovery of a large image."""

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
"""Upper bound on the rounding error of blended values, whose weights sum to 1."""


def combine(mosaic: Mosaic, outcomes: Mapping[Place, Outcome], metrics: CustomMetrics | None = None) -> Outcome:
    """Blend the tiles of an image, and compute the scores of the whole image.

    The status is the worst status of the tiles, the iterations are the fewest, the seconds the sum, and the loss the
    mean.

    Args:
        mosaic: the image and its tiles.
        outcomes: outcome of each tile, by (row, column). They are accessed one by one, once for each of their tensors,
            so that a mapping that reads them from files holds only one at a time.
        metrics: custom metrics, computed on the whole image.
    """
    parts = [_Summary.of(outcome) for outcome in outcomes.values()]
    signal = mosaic.grid.blend(_Field(outcomes, lambda outcome: outcome.signal))
    corruption = mosaic.grid.blend(_Field(outcomes, lambda outcome: outcome.corruption))
    for x, s, y in zip(signal, corruption, mosaic.whole.observation, strict=True):  # by channel, to save memory
        # entries that all tiles kept are blends of equal values: undo their rounding errors
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
    """Blend the probabilities of corruption of the tiles; ``None`` if a tile has none."""
    if not all(part.has_probability for part in parts):
        return None
    blended = mosaic.grid.blend(_Field(outcomes, _probability)).clamp_(0, 1)
    return blended if mosaic.whole.mask is None else blended.mul_(mosaic.whole.mask)


def _probability(outcome: Outcome) -> Tensor:
    if outcome.corruption_probability is None:
        raise ValueError(f"{outcome.problem.name}: the tile must have a probability of corruption, got none")
    return outcome.corruption_probability


class _Summary(NamedTuple):
    """Outcome of a tile without its tensors."""

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
    """One tensor of each outcome, read on access."""

    def __init__(self, outcomes: Mapping[Place, Outcome], take: Callable[[Outcome], Tensor]) -> None:
        self._outcomes = outcomes
        self._take = take

    def __getitem__(self, place: Place) -> Tensor:
        return self._take(self._outcomes[place])

    def __iter__(self) -> Iterator[Place]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)
