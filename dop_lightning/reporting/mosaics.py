"""The recovery of a large image, put together from the files that its tiles have left."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dop_lightning.outcome import Outcome, Status
from dop_lightning.problems import Problem, ProblemBatch
from dop_lightning.scoring import Scorer
from dop_lightning.tiling import Mosaic

RESULT, SIGNAL, CORRUPTION = "result.json", "recovered.npy", "corruption.npy"

_WORST_FIRST: tuple[Status, ...] = ("diverged", "interrupted", "running", "done", "stable")


def assemble(run: Path, mosaic: Mosaic) -> Outcome | None:
    """Blend the tiles of an image, from their folders in the run, and score the whole.

    Its status is the worst of its tiles', its iterations the fewest, its seconds their sum, its loss their mean.

    Args:
        run: the folder of the run.
        mosaic: the image and its tiles.

    Returns:
        The outcome of the whole; ``None`` where a tile has left no result yet.

    Raises:
        ValueError: a file of a tile is damaged.
    """
    folders = {place: run / tile.folder for place, tile in mosaic.tiles.items()}
    if not all((folder / RESULT).is_file() for folder in folders.values()):
        return None
    results = [json.loads((folder / RESULT).read_text(encoding="utf-8")) for folder in folders.values()]
    signal, corruption = (
        mosaic.grid.blend({place: _array(folders[place] / file, tile) for place, tile in mosaic.tiles.items()})
        for file in (SIGNAL, CORRUPTION)
    )
    first = results[0]
    losses = [result["loss"] for result in results if result.get("loss") is not None]
    loss = torch.tensor([sum(losses) / len(losses) if losses else float("nan")])
    scorer = Scorer(ProblemBatch([mosaic.whole]), corruption=first["alpha"] is not None)
    return Outcome(
        problem=mosaic.whole,
        status=min((result["status"] for result in results), key=_WORST_FIRST.index),
        iteration=min(result["iterations"] for result in results),
        seconds=sum(result["seconds"] for result in results),
        tau=first["tau"],
        alpha=first["alpha"],
        signal=signal,
        corruption=corruption,
        scores=scorer.final(signal[None], corruption[None], loss)[0],
    )


def _array(path: Path, tile: Problem) -> Tensor:
    """The array of a tile, which a crash of the machine may have damaged."""
    try:
        array = torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove the folder {path.parent} and start again") from error
    if array.shape != tile.observation.shape:
        raise ValueError(f"{path}: must have shape {tuple(tile.observation.shape)}, got {tuple(array.shape)}")
    return array
