"""The recovery of a large image, blended from those of its tiles."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome, Status
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.scoring import Scorer

WORST_FIRST: tuple[Status, ...] = ("diverged", "interrupted", "running", "done", "stable")

ROUNDING = 1e-6
"""The sum of weights of tiles is 1 but for less than this."""


def combine(
    mosaic: Mosaic, outcomes: Mapping[tuple[int, int], Outcome], metrics: CustomMetrics | None = None
) -> Outcome:
    """Blend the tiles of an image, and score the whole.

    Its status is the worst of its tiles', its iterations the fewest, its seconds their sum, its loss their mean.

    Args:
        mosaic: the image and its tiles.
        outcomes: of every tile, by its (row, column).
        metrics: metrics of the user, computed on the whole image.
    """
    parts = list(outcomes.values())
    signal = mosaic.grid.blend({place: outcome.signal for place, outcome in outcomes.items()})
    corruption = mosaic.grid.blend({place: outcome.corruption for place, outcome in outcomes.items()})
    # what each tile has kept is blended of equal values, which rounding may have changed
    same = (corruption == 0) & ((signal - mosaic.whole.observation).abs() < ROUNDING)
    signal = torch.where(same, mosaic.whole.observation, signal)
    probability = _blended_probability(mosaic, outcomes)
    losses = [outcome.scores["loss"] for outcome in parts if "loss" in outcome.scores]
    loss = torch.tensor([sum(losses) / len(losses) if losses else float("nan")])
    has_corruption = parts[0].alpha is not None or "corruption_density" in parts[0].scores  # filters have no α
    scorer = Scorer(ProblemBatch([mosaic.whole]), corruption=has_corruption, metrics=metrics)
    return Outcome(
        problem=mosaic.whole,
        status=min((outcome.status for outcome in parts), key=WORST_FIRST.index),
        iteration=min(outcome.iteration for outcome in parts),
        seconds=sum(outcome.seconds for outcome in parts),
        tau=parts[0].tau,
        alpha=parts[0].alpha,
        signal=signal,
        corruption=corruption,
        scores=scorer.final(signal[None], corruption[None], loss)[0],
        corruption_probability=probability,
    )


def _blended_probability(mosaic: Mosaic, outcomes: Mapping[tuple[int, int], Outcome]) -> Tensor | None:
    """That of the whole; ``None`` where a tile has none."""
    parts = {place: outcome.corruption_probability for place, outcome in outcomes.items()}
    known = {place: part for place, part in parts.items() if part is not None}
    if len(known) < len(parts):
        return None
    blended = mosaic.grid.blend(known).clamp(0, 1)
    return blended if mosaic.whole.mask is None else blended * mosaic.whole.mask
