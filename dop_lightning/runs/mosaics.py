"""The recovery of a large image, put together from those of its tiles."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome, Status
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import Scorer
from dop_lightning.runs.folder import RESULT, RunFolder

SIGNAL, CORRUPTION = "recovered.npy", "corruption.npy"

_WORST_FIRST: tuple[Status, ...] = ("diverged", "interrupted", "running", "done", "stable")


def combine(mosaic: Mosaic, outcomes: Mapping[tuple[int, int], Outcome]) -> Outcome:
    """Blend the tiles of an image, and score the whole.

    Its status is the worst of its tiles', its iterations the fewest, its seconds their sum, its loss their mean.

    Args:
        mosaic: the image and its tiles.
        outcomes: of every tile, by its (row, column).
    """
    parts = list(outcomes.values())
    signal = mosaic.grid.blend({place: outcome.signal for place, outcome in outcomes.items()})
    corruption = mosaic.grid.blend({place: outcome.corruption for place, outcome in outcomes.items()})
    losses = [outcome.scores["loss"] for outcome in parts if "loss" in outcome.scores]
    loss = torch.tensor([sum(losses) / len(losses) if losses else float("nan")])
    scorer = Scorer(ProblemBatch([mosaic.whole]), corruption=parts[0].alpha is not None)
    return Outcome(
        problem=mosaic.whole,
        status=min((outcome.status for outcome in parts), key=_WORST_FIRST.index),
        iteration=min(outcome.iteration for outcome in parts),
        seconds=sum(outcome.seconds for outcome in parts),
        tau=parts[0].tau,
        alpha=parts[0].alpha,
        signal=signal,
        corruption=corruption,
        scores=scorer.final(signal[None], corruption[None], loss)[0],
    )


def assemble(run: Path, mosaic: Mosaic) -> Outcome | None:
    """Combine what the tiles of an image have left in their folders, whoever has recovered them.

    Args:
        run: the folder of the run.
        mosaic: the image and its tiles.

    Returns:
        The outcome of the whole; ``None`` where a tile has left no result yet.

    Raises:
        ValueError: a file of a tile is damaged.
    """
    if not all((run / tile.folder / RESULT).is_file() for tile in mosaic.tiles.values()):
        return None
    return combine(mosaic, {place: _read(run, tile) for place, tile in mosaic.tiles.items()})


def _read(run: Path, tile: Problem) -> Outcome:
    """The outcome of a tile, from its files, which a crash of the machine may have damaged."""
    folder = run / tile.folder
    try:
        result = RunFolder(run).result(tile.folder)
        return Outcome(
            problem=tile,
            status=result["status"],
            iteration=result["iterations"],
            seconds=result["seconds"],
            tau=result["tau"],
            alpha=result["alpha"],
            signal=_array(folder / SIGNAL, tile),
            corruption=_array(folder / CORRUPTION, tile),
            scores={"loss": result["loss"]} if "loss" in result else {},
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: a file of this tile is damaged ({error}); remove the folder and start again"
        ) from error


def _array(path: Path, tile: Problem) -> Tensor:
    array = torch.from_numpy(np.load(path))
    if array.shape != tile.observation.shape:
        raise ValueError(f"{path.name} has shape {tuple(array.shape)} instead of {tuple(tile.observation.shape)}")
    return array
