"""Process that reads uploaded files: it reports errors and contents, and estimates damage and times.

It is a separate process, because untrusted files may exhaust the memory or crash their reader. It reads one request per
line from standard input, and answers each with one line; both are JSON objects.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dop_lightning.cli.app.job import PAGE_FOLDER
from dop_lightning.cli.configs.preset_times import Rates
from dop_lightning.engine.steps.clean_entries import likely_damage
from dop_lightning.engine.steps.clean_entries.initial import initial, initial_support
from dop_lightning.foundation.machine import set_threads
from dop_lightning.images.presets import PRESETS
from dop_lightning.images.preview import Preview
from dop_lightning.lightning.data.images import ImageFile
from dop_lightning.lightning.data.matrices import MatrixDataModule
from dop_lightning.matrices.arrays import MATRIX_SUFFIXES, matrix_suffix
from dop_lightning.problems.noise import NoNoise
from dop_lightning.problems.problem import Problem, scale

THUMBNAIL = 640
"""Maximum number of pixels per side of a thumbnail."""

MIDDLE = 192
"""Side in pixels of the centre of a photograph from which the fraction of damaged values is estimated."""

READ = 64 * 2**20
"""Maximum size in bytes of matrices that are read before the start."""

SHOWN = 256
"""Maximum number of rows and columns of a matrix in its thumbnail."""


def examine(kind: str, path: Path) -> dict[str, Any]:
    """Describe the content of a file, and write its thumbnail.

    Args:
        kind: ``recover`` or ``separate``.
        path: path of the file.

    Raises:
        ValueError: the file is not supported.
        OSError: the file cannot be read.
        ImportError: the reader of its format is not installed.
    """
    return photograph(path) if kind == "recover" else data(path)


def thumbnail_of(path: Path) -> Path:
    """Return the path of the thumbnail of an uploaded file, and create its folder."""
    folder = path.parent / PAGE_FOLDER
    folder.mkdir(exist_ok=True)
    return folder / "thumbnail.png"


def photograph(path: Path) -> dict[str, Any]:
    """Return the shape of an image, the suffix of its result, and the fraction of missing values."""
    source = ImageFile(path)
    problem = source.problem(NoNoise(), 0)
    Image.fromarray(Preview(problem, limit=THUMBNAIL).picture()).save(thumbnail_of(path))
    return {
        "shape": list(problem.signal_shape),
        "suffix": source.format_of(problem.signal_shape).suffix,
        "missing": 0.0 if problem.mask is None else 1 - float(problem.mask.float().mean()),
    }


def estimate(path: Path) -> dict[str, Any]:
    """Estimate the fraction of damaged values in the centre of an image, and the likely kinds of damage.

    The kinds are those that ``dop recover`` suggests, ``None`` if it suggests none.
    """
    problem = ImageFile(path).problem(NoNoise(), 0)
    with torch.inference_mode():
        share = damaged_share(problem)
        likely = likely_damage(problem.observation, scale(problem), problem.mask)
    return {"damaged": share, "likely": likely}


def damaged_share(problem: Problem) -> float:
    """Estimate the fraction of damaged values among the observed ones in the centre of an image."""
    height, width = problem.observation.shape[1:]
    rows, columns = (
        slice(max(0, (side - MIDDLE) // 2), max(0, (side - MIDDLE) // 2) + MIDDLE) for side in (height, width)
    )
    mask = None if problem.mask is None else problem.mask[:, rows, columns]
    if mask is not None and not bool(mask.any()):
        return 0.0
    part = Problem("middle", problem.observation[:, rows, columns].contiguous(), mask=mask, data_range=1.0)
    found = initial(part)
    clean = initial_support(found, part.observation, scale(part)).clean
    observed = torch.ones_like(found.mask) if mask is None else mask
    return float(1 - clean[observed].mean())


def data(path: Path) -> dict[str, Any]:
    """Return the size of a matrix and the fraction of missing entries, or the frames of a video."""
    suffix = matrix_suffix(path)
    if suffix not in MATRIX_SUFFIXES:
        return video(path)
    if path.stat().st_size > READ:
        return {}
    module = MatrixDataModule(files=[str(path)])
    module.setup()
    problem = module.problems[0]
    write_matrix_thumbnail(problem, thumbnail_of(path))
    missing = 0.0 if problem.mask is None else 1 - float(problem.mask.float().mean())
    return {"shape": list(problem.signal_shape), "missing": missing}


def write_matrix_thumbnail(problem: Problem, path: Path) -> None:
    """Write a heat map of a matrix: blue below 0, red above."""
    from dop_lightning.images.pictures import heatmap

    rows, columns = (max(1, -(-side // SHOWN)) for side in problem.observation.shape)
    Image.fromarray(np.asarray(heatmap(problem.observation[::rows, ::columns]))).save(path)


def video(path: Path) -> dict[str, Any]:
    """Return the number of frames of a video, and write the first frame as the thumbnail."""
    from dop_lightning.matrices.scenes.find import find_frames

    frames = find_frames(path)
    first = np.asarray(next(iter(frames)))
    levels = (first * (255 / frames.white)).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)  # (C, H, W) -> (H, W, C)
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels[..., :3])
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(thumbnail_of(path))
    return {"frames": len(frames), "size": list(first.shape[1:])}


def times(rates: Rates, shape: tuple[int, int, int], names: tuple[str, ...]) -> dict[str, float]:
    """Estimate the seconds of presets for an image of shape (C, H, W) on this machine."""
    return {name: rates.seconds(PRESETS[name], shape[1], shape[2]) for name in names}


def answer(request: Mapping[str, Any], rates: Rates) -> dict[str, Any]:
    """Answer a request; ``line`` is the error message, if any."""
    path = Path(request.get("path", ""))
    try:
        if request["do"] == "times":
            return times(rates, tuple(request["shape"]), tuple(request["names"]))
        return estimate(path) if request["do"] == "estimate" else examine(request["kind"], path)
    except (ValueError, OSError, ImportError) as error:
        text = f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
        line = " ".join(text.split()) or type(error).__name__
        return {"line": line.replace(f"{path.parent.resolve()}/", "").replace(f"{path.parent}/", "")}
    except (MemoryError, RuntimeError) as error:
        return {"line": f"{path.name}: the file cannot be read ({type(error).__name__})"}


def main(read: Callable[[], str] = sys.stdin.readline) -> None:
    """Answer requests until the input ends."""
    set_threads()
    output, sys.stdout = sys.stdout, sys.stderr  # keeps the output of readers out of the answers
    rates = Rates()
    while line := read():
        print(json.dumps(answer(json.loads(line), rates)), file=output, flush=True)


if __name__ == "__main__":
    main()
