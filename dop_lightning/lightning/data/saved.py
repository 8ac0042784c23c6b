"""Convert problems to plain types and tensors, as in a checkpoint file, and back to a data module."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dop_lightning.images.tiles import Grid, Mosaic
from dop_lightning.lightning.data.base import RecoveryDataModule, Source
from dop_lightning.lightning.hyperparameters import plain, unsaved_parts
from dop_lightning.problems.problem import Problem, ProblemBatch, Sensing, form_batches

_TENSORS = ("observation", "truth", "true_corruption", "mask", "undamaged")
_PLAIN = ("name", "seed", "data_range", "folder", "alpha", "measured", "noise")


class GivenProblems(RecoveryDataModule):
    """Data module of existing problems, created in Python or read from a checkpoint file.

    Args:
        problems: problems with unique names.
        batch_size: maximum number of problems in a batch; ``None`` combines all problems of one shape.

    Raises:
        ValueError: there are no problems, or names are not unique.
    """

    def __init__(self, problems: Sequence[Problem], batch_size: int | None = None) -> None:
        super().__init__(batch_size=batch_size)
        names = [problem.name for problem in problems]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"problems must be at least one, with unique names, got {names}")
        self.wholes = self.problems = list(problems)
        self.batches = form_batches(self.problems, batch_size)

    def sources(self) -> Sequence[Source]:
        """Return an empty list, since the problems already exist."""
        return []


def save_problems(data: Any) -> dict[str, Any]:
    """Convert the problems of a data module to plain types and tensors.

    Args:
        data: a :class:`~dop_lightning.lightning.data.RecoveryDataModule` after ``setup``.
    """
    return {
        "batches": [batch.names for batch in data.batches],
        "problems": {problem.name: _save(problem) for problem in data.problems},
        "wholes": [
            {"whole": _save(whole), **_save_tiles(data.mosaics[whole.name])}
            if whole.name in data.mosaics
            else whole.name
            for whole in data.wholes
        ],
    }


def _save(problem: Problem) -> dict[str, Any]:
    saved: dict[str, Any] = {name: getattr(problem, name) for name in (*_TENSORS, *_PLAIN)}
    saved["signal_shape"] = list(problem.signal_shape)
    saved["attributes"] = plain(problem.attributes)
    saved["sensing"] = plain(problem.sensing)
    return saved


def _save_tiles(mosaic: Mosaic) -> dict[str, Any]:
    grid = mosaic.grid
    return {
        "grid": [list(part) for part in (grid.size, grid.tile, grid.tops, grid.lefts)],
        "tiles": [[i, j, tile.name] for (i, j), tile in mosaic.tiles.items()],
    }


def load_problems(saved: Mapping[str, Any]) -> GivenProblems:
    """Create a data module from the result of :func:`save_problems`.

    Raises:
        ValueError: the sensing of a problem could not be saved.
    """
    problems = {name: _load(entry) for name, entry in saved["problems"].items()}
    data = GivenProblems(list(problems.values()))
    data.batches = [ProblemBatch([problems[name] for name in names]) for names in saved["batches"]]
    data.wholes = []
    for entry in saved["wholes"]:
        if isinstance(entry, str):
            data.wholes.append(problems[entry])
            continue
        whole, (size, tile, tops, lefts) = _load(entry["whole"]), entry["grid"]
        grid = Grid((size[0], size[1]), (tile[0], tile[1]), tuple(tops), tuple(lefts))
        data.wholes.append(whole)
        data.mosaics[whole.name] = Mosaic(whole, grid, {(i, j): problems[name] for i, j, name in entry["tiles"]})
    return data


def _load(entry: Mapping[str, Any]) -> Problem:
    # files of version 0.1 lack entries that were added later
    own = {name: entry[name] for name in (*_TENSORS, *_PLAIN, "attributes") if name in entry}
    return Problem(**own, signal_shape=tuple(entry["signal_shape"]), sensing=_sensing(entry["name"], entry["sensing"]))


def _sensing(name: str, saved: Mapping[str, Any] | None) -> Sensing | None:
    """Create the sensing of a problem. Its class must be imported already, since a file must not import code."""
    if saved is None:
        return None
    if what := unsaved_parts({"sensing": saved}):
        raise ValueError(f"{name}: a checkpoint file cannot store its sensing ({what['sensing']}); pass datamodule=…")
    module, _, kind = saved["class_path"].rpartition(".")
    found = getattr(sys.modules.get(module), kind, None)
    if not (isinstance(found, type) and issubclass(found, Sensing)):
        raise ValueError(f"{name}: has the sensing {saved['class_path']}; import {module} first, or pass datamodule=…")
    return found(**saved.get("init_args", {}))
