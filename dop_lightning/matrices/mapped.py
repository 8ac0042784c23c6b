"""Separate a matrix that is larger than memory: a stored matrix, read and written strip by strip.

U and V alone lie in memory, ``(n + m)·k`` numbers. Each step of alternating projections
(:class:`~dop_lightning.engine.projections.AlternatingProjections`) is one sequential pass over the file; the sparse
part is computed anew whenever it is needed.

Shapes: n rows, m columns.
"""

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.projections.saved import loaded_progress, saved_progress
from dop_lightning.engine.projections.solver import AlternatingProjections, Recovery
from dop_lightning.engine.projections.sweep import Observation, strips_of
from dop_lightning.foundation.atomic import atomic_json, write_atomically
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.find import existing_file
from dop_lightning.matrices.storage.formats import open_matrix, strip_suffix, write_matrix
from dop_lightning.matrices.storage.numpy_file import map_numpy
from dop_lightning.matrices.storage.places import Place, locate
from dop_lightning.matrices.storage.source import BLOCK_BYTES, StripMatrix
from dop_lightning.matrices.table_strips import convert_table, is_table

PROGRESS, RESULT, REJECTED = "progress.pt", "result.json", "rejected.json"

COPY = "observation"
"""Start of the name of the copy of a table."""

SAVE_AFTER = 30.0
"""Seconds between two saves of the progress."""

SMALLEST, LARGEST = 1e-15, 1e15
"""Bounds of the largest entry: squares of others are no numbers of float32."""


def is_separated(folder: Path) -> bool:
    """Return whether a folder holds results, or the progress, of :func:`separate_mapped`."""
    if (folder / PROGRESS).is_file():
        return True
    try:
        return "about" in json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def separate_mapped(
    file: str | Path,
    folder: Path,
    solver: AlternatingProjections,
    seed: int = 0,
    say: Callable[[str], object] = print,
    passes: int = 500,
    index: Sequence[str] = (),
) -> dict[str, Any]:
    """Separate the matrix of a file into ``recovered`` and ``corruption``, two files of its format and shape.

    They are of its type if that is float32 or float64; other types become float32, and longer floats float64. NaN
    entries are missing. ``progress.pt`` is saved between passes; call the function again to resume.

    Tables are copied into a ``.npy`` of float64 in the folder first, which is removed at the end; their parts are
    ``.npy`` without labels.

    A rejection is recorded in ``rejected.json``: the next call with the same file and settings does no pass.

    Args:
        file: ``.npy``, ``.h5``, ``.hdf5``, ``.zarr`` or ``.zarr.zip``; ``file.h5::/path/of/array`` chooses an array of
            several. Or a table: ``.csv``, ``.tsv``, either as ``.gz``, or ``.parquet``.
        folder: of the results, which are written last; ``result.json`` after the others.
        solver: the settings.
        seed: of the start and of the hidden entries.
        say: gets a line per pass.
        passes: at most, at least 1.
        index: names of the columns of a table that hold labels.

    Returns:
        The contents of ``result.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the library that reads the format is not installed.
        ValueError: the file is no such matrix, the folder holds results of another one, or the projections are not
            confirmed.
        KeyboardInterrupt: after the progress was saved.
    """
    place = locate(file)
    name, suffix = place.path.name, strip_suffix(place.path) or ".npy"
    D = None if is_table(place.path) else open_matrix(place)
    about = _about(place, solver, seed, index)
    if (folder / RESULT).is_file():
        known: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        _require_same(known.get("about"), about, folder)
        say(f"{name}: already separated in {folder}")
        return known
    _refuse_rejected(place, folder, about)
    folder.mkdir(parents=True, exist_ok=True)
    D = _copied(place, folder, about, index, say) if D is None else D
    if isinstance(D, StripMatrix) and D.decodings > 1:
        say(f"{name}: chunks are larger than {BLOCK_BYTES >> 20} MiB and decoded {D.decodings} times per pass")
    start = time.monotonic()
    recovery, seconds = _begun(D, folder, about, solver, seed, say)
    _run(recovery, folder, about, seconds, say, name, at_least("passes", passes, 1))
    if recovery.progress.phase != "ended":
        raise ValueError(f"{file}: not finished after {recovery.steps_done} passes; raise --iterations and go on")
    verdict = recovery.progress.certificate
    if verdict is None or not verdict.is_accepted:
        reason = "" if verdict is None else verdict.reason
        _reject(folder, about, reason, recovery.steps_done)
        raise ValueError(f"{place}: alternating projections are not confirmed ({reason}); {_IN_MEMORY}")
    say(f"{name}: writing {folder}")
    outliers = _write(recovery, D, folder, suffix)
    report = recovery.report()
    result = {
        "problem": folder.name,
        "attributes": {"matrix": folder.name},
        "seed": seed,
        "shape": list(D.shape),
        "tau": 0.0,
        "alpha": None,
        "status": "stable",
        "iterations": recovery.steps_done,
        "seconds": round(seconds + time.monotonic() - start, 3),
        "corruption_density": outliers / max(1, recovery.observed),
        "rank": float(recovery.progress.estimate.rank),
        "report": report,
        "about": about,
    }
    atomic_json(folder / RESULT, result)
    _clear(folder)
    return result


def _copied(
    place: Place, folder: Path, about: Mapping[str, Any], index: Sequence[str], say: Callable[[str], object]
) -> Tensor | StripMatrix:
    """The numbers of a table, mapped; its copy is made unless there is one of the same file."""
    content = json.dumps([about["file"], about["bytes"], about["modified"], *index])
    copy = folder / f"{COPY}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}.npy"
    if not copy.is_file():
        _remove_copies(folder)
        say(f"{place.path.name}: copying the table to {copy}")
        convert_table(place.path, copy, index)
    return map_numpy(copy)


def _remove_copies(folder: Path) -> None:
    for file in folder.glob(f"{COPY}-*.npy"):
        file.unlink()


def _clear(folder: Path) -> None:
    """Remove what a separation that has ended does not need."""
    (folder / PROGRESS).unlink(missing_ok=True)
    _remove_copies(folder)


_IN_MEMORY = "DOP needs the matrix in memory, raise --max-memory"


def _reject(folder: Path, about: Mapping[str, Any], reason: str, passes: int) -> None:
    """Record that the projections were not confirmed."""
    atomic_json(folder / REJECTED, {"reason": reason, "passes": passes, "about": dict(about)})
    _clear(folder)


def _refuse_rejected(place: Place, folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse to repeat the passes of a rejection; one of another file or of other settings is removed.

    Raises:
        ValueError: the same separation was rejected before.
    """
    file = folder / REJECTED
    if not file.is_file():
        return
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        is_same, reason, passes = known["about"] == about, known["reason"], known["passes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error!r}); remove it to begin anew") from None
    if is_same:
        raise ValueError(
            f"{place}: alternating projections were not confirmed before, after {passes} passes ({reason}); "
            f"{_IN_MEMORY}, or remove {file} to repeat them"
        )
    file.unlink()


def _about(place: Place, solver: AlternatingProjections, seed: int, index: Sequence[str]) -> dict[str, Any]:
    """What a result is of: it is not mixed with that of another file or of other settings."""
    files = (
        [existing_file(place.path)]
        if not place.path.is_dir()
        else [file for file in place.path.rglob("*") if file.is_file()]
    )
    states = [file.stat() for file in files]
    return {
        "file": str(place.path.resolve()),
        **({} if place.array is None else {"array": place.array}),
        **({"index": list(index)} if index else {}),
        "bytes": sum(state.st_size for state in states),
        "modified": max(state.st_mtime_ns for state in states),
        "rank": solver.bound,
        "tolerance": solver.tolerance,
        "seed": seed,
    }


def _require_same(known: object, about: Mapping[str, Any], folder: Path) -> None:
    if known == about:
        return
    differing = [key for key, value in about.items() if not isinstance(known, dict) or known.get(key) != value]
    raise ValueError(
        f"{folder} holds the results of another separation ({', '.join(differing)} differ); use another --out"
    )


def _begun(
    D: Tensor | StripMatrix,
    folder: Path,
    about: Mapping[str, Any],
    solver: AlternatingProjections,
    seed: int,
    say: Callable[[str], object],
) -> tuple[Recovery, float]:
    """The recovery, where it was left if it has begun, and the seconds that it has taken."""
    saved: dict[str, Any] | None = None
    if (folder / PROGRESS).is_file():
        try:
            saved = torch.load(folder / PROGRESS, weights_only=True)
        except Exception as error:  # whatever a damaged file raises
            raise ValueError(f"{folder / PROGRESS}: damaged ({error}); remove it to begin anew") from None
        _require_same(saved["about"], about, folder)
    has_gaps = _checked(D, about["file"])
    observation = Observation(D, None, torch.empty(0, dtype=torch.int64), has_gaps)
    recovery = Recovery(solver, observation, seed, begins=saved is None)
    if saved is None:
        return recovery, 0.0
    like = torch.empty(0, dtype=D.dtype)
    recovery.progress = loaded_progress(saved, like)
    recovery.steps_done = int(saved["steps_done"])
    say(f"{folder.name}: going on after {recovery.steps_done} passes")
    return recovery, float(saved["seconds"])


def _checked(D: Tensor | StripMatrix, name: str) -> bool:
    """Whether entries are missing.

    Raises:
        ValueError: one is infinite, or all are missing.
    """
    missing, largest = 0, 0.0
    for rows in strips_of(D):
        strip = D[rows]
        missing += int(torch.isnan(strip).sum())
        if bool(torch.isinf(strip).any()):
            raise ValueError(f"{name}: entries must be finite, or NaN where missing, got an infinite one")
        largest = max(largest, float(torch.nan_to_num(strip, nan=0.0).abs().max()))
    if missing == D.numel():
        raise ValueError(f"{name}: all entries are missing")
    if largest and not SMALLEST < largest < LARGEST:
        raise ValueError(
            f"{name}: the largest entry must lie between {SMALLEST:.0e} and {LARGEST:.0e}, got {largest:.3g}; use "
            "another unit"
        )
    return missing > 0


def _run(
    recovery: Recovery,
    folder: Path,
    about: Mapping[str, Any],
    seconds: float,
    say: Callable[[str], object],
    name: str,
    passes: int,
) -> None:
    """Do all steps, and save the progress from time to time and if interrupted."""
    start = saved_at = time.monotonic()
    kept, done = saved_progress(recovery.progress), recovery.steps_done

    def save(progress: Mapping[str, Any]) -> None:
        content = {
            **progress,
            "about": dict(about),
            "steps_done": done,
            "seconds": seconds + time.monotonic() - start,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(folder / PROGRESS, lambda file: file.write(buffer.getvalue()))

    try:
        while recovery.progress.phase != "ended" and recovery.steps_done < passes:
            recovery.step()
            done = recovery.steps_done
            kept = saved_progress(recovery.progress)
            now = recovery.progress
            residual = f"{now.energies[-1]:.2g}" if now.energies else "–"
            say(
                f"{name}: pass {recovery.steps_done}, rank {now.estimate.rank}, {100 * now.share:.1f} % outliers, "
                f"residual {residual}"
            )
            if time.monotonic() - saved_at > SAVE_AFTER:
                save(kept)
                saved_at = time.monotonic()
        if recovery.progress.phase != "ended":
            save(kept)
    except KeyboardInterrupt:
        save(kept)
        say(f"{name}: stopped after {done} passes; the same command goes on")
        raise


def _write(recovery: Recovery, D: Tensor | StripMatrix, folder: Path, suffix: str) -> int:
    """Write both parts, strip by strip; return the number of outliers."""
    kind = np.dtype(str(D.dtype).removeprefix("torch."))

    def write(name: str, which: int) -> int:
        entries = 0
        with write_matrix(folder / f"{name}{suffix}", (D.shape[0], D.shape[1]), kind) as append:
            for rows in strips_of(D):
                part = recovery.rows_of_parts(rows)[which].to(D.dtype)
                entries += int(torch.count_nonzero(part))
                append(part.numpy())
        return entries

    write("recovered", 0)
    return write("corruption", 1)
