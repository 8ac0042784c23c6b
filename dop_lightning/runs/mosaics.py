"""Recovery of a large image, assembled from the results of its tiles in the folder of a run."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.images.mosaics import WORST_FIRST, combine
from dop_lightning.images.tiles import Mosaic, Place
from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.damage import find_damage, require_intact
from dop_lightning.runs.folder import RESULT, RunFolder

SIGNAL, CORRUPTION, PROBABILITY = "recovered.npy", "corruption.npy", "corruption_probability.npy"


def assemble(run: Path, mosaic: Mosaic, metrics: CustomMetrics | None = None) -> Outcome | None:
    """Combine the results of the tiles of an image, from their folders.

    Args:
        run: folder of the run.
        mosaic: the image and its tiles.
        metrics: custom metrics, computed on the whole image.

    Returns:
        The outcome of the whole image; ``None`` if a tile has no result yet.

    Raises:
        ValueError: a file of a tile is damaged.
    """
    if not all((run / tile.folder / RESULT).is_file() for tile in mosaic.tiles.values()):
        return None
    return combine(mosaic, _Outcomes(run, mosaic), metrics)


class _Outcomes(Mapping[Place, Outcome]):
    """The outcomes of the tiles of an image, read on access, and checked at the first access."""

    def __init__(self, run: Path, mosaic: Mosaic) -> None:
        self._run = run
        self._tiles = mosaic.tiles
        self._checked: set[Place] = set()

    def __getitem__(self, place: Place) -> Outcome:
        outcome = _read_outcome(self._run, self._tiles[place], check=place not in self._checked)
        self._checked.add(place)
        return outcome

    def __iter__(self) -> Iterator[Place]:
        return iter(self._tiles)

    def __len__(self) -> int:
        return len(self._tiles)


def is_assembled(run: Path, mosaic: Mosaic) -> bool:
    """Return whether the result of an image agrees with the results of its tiles and its files are intact.

    Args:
        run: folder of the run.
        mosaic: the image and its tiles.
    """
    folder = RunFolder(run)
    if find_damage(run, mosaic.whole.folder):
        return False
    try:
        whole, *parts = (folder.result(each.folder) for each in (mosaic.whole, *mosaic.tiles.values()))
        expected = {
            "status": min((part["status"] for part in parts), key=WORST_FIRST.index),
            "iterations": min(part["iterations"] for part in parts),
            "seconds": round(sum(part["seconds"] for part in parts), 3),  # increases with each block of a tile
        }
        return all(whole[key] == value for key, value in expected.items())
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged; `assemble` then names the file
        return False


def _read_outcome(run: Path, tile: Problem, check: bool) -> Outcome:
    """Return the outcome of a tile, read from its files, which a crash of the machine may have damaged.

    Args:
        run: folder of the run.
        tile: the tile.
        check: whether to compare the files with their checksums.
    """
    folder = run / tile.folder
    probability = folder / PROBABILITY
    try:
        result = RunFolder(run).result(tile.folder)
        for path in (folder / SIGNAL, folder / CORRUPTION, probability) if check else ():
            require_intact(path, result)
        return Outcome(
            problem=tile,
            status=result["status"],
            iteration=result["iterations"],
            seconds=result["seconds"],
            tau=result["tau"],
            alpha=result["alpha"],
            signal=_read_array(folder / SIGNAL, tile),
            corruption=_read_array(folder / CORRUPTION, tile),
            scores={tag: result[tag] for tag in ("loss", "corruption_density") if tag in result},
            corruption_probability=_read_array(probability, tile) if probability.is_file() else None,
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: a file of this tile is damaged ({error}); remove the folder and start again"
        ) from error


def _read_array(path: Path, tile: Problem) -> Tensor:
    array = torch.from_numpy(np.load(path, mmap_mode="c"))  # unused parts take no memory
    if tuple(array.shape) != tile.shape:
        raise ValueError(f"{path.name} has shape {tuple(array.shape)} instead of {tile.shape}")
    return array
