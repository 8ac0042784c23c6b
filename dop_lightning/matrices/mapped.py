"""Separate a matrix that is larger than memory: a mapped file, read and written strip by strip.

U and V alone lie in memory, ``(n + m)·k`` numbers. Each step of alternating projections
(:class:`~dop_lightning.engine.projections.AlternatingProjections`) is one sequential pass over the file; the sparse
part is computed anew whenever it is needed.

Shapes: n rows, m columns.
"""

import io
import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.projections.saved import loaded_progress, saved_progress
from dop_lightning.engine.projections.solver import AlternatingProjections, Recovery
from dop_lightning.engine.projections.sweep import Observation
from dop_lightning.foundation.atomic import atomic_json, stream_atomically, write_atomically
from dop_lightning.foundation.checks import at_least

PROGRESS, RESULT = "progress.pt", "result.json"

SAVE_AFTER = 30.0
"""Seconds between two saves of the progress."""

SMALLEST, LARGEST = 1e-15, 1e15
"""Bounds of the largest entry: squares of others are no numbers of float32."""

TYPES = np.dtype("float32"), np.dtype("float64")


def map_matrix(file: Path) -> Tensor:
    """Return the matrix in a ``.npy`` file without reading it.

    Args:
        file: of float32 or float64 numbers.

    Raises:
        ValueError: the file is damaged, or no matrix of these types.
    """
    try:
        array = np.load(file, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file}: not a readable .npy file ({error})") from None
    if array.ndim != 2 or array.dtype not in TYPES or 0 in array.shape:
        shape = "×".join(map(str, array.shape))
        raise ValueError(
            f"{file}: must be a matrix of float32 or float64 to be read in pieces, got {array.dtype} {shape}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it is not writable, and is not written to
        return torch.from_numpy(array)


def can_be_mapped(file: Path) -> bool:
    """Return whether a file holds a matrix that :func:`map_matrix` maps."""
    if file.suffix.lower() != ".npy" or not file.is_file():
        return False
    try:
        map_matrix(file)
    except ValueError:
        return False
    return True


def is_separated(folder: Path) -> bool:
    """Return whether a folder holds results, or the progress, of :func:`separate_mapped`."""
    if (folder / PROGRESS).is_file():
        return True
    try:
        return "about" in json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def separate_mapped(
    file: Path,
    folder: Path,
    solver: AlternatingProjections,
    seed: int = 0,
    say: Callable[[str], object] = print,
    passes: int = 500,
) -> dict[str, Any]:
    """Separate the matrix of a file into ``recovered.npy`` and ``corruption.npy``, of its type and shape.

    NaN entries are missing. ``progress.pt`` is saved between passes; call the function again to resume.

    Args:
        file: ``.npy``.
        folder: of the results, which are written last; ``result.json`` after the others.
        solver: the settings.
        seed: of the start and of the hidden entries.
        say: gets a line per pass.
        passes: at most, at least 1.

    Returns:
        The contents of ``result.json``.

    Raises:
        ValueError: the file is no such matrix, the folder holds results of another one, or the projections are not
            confirmed.
        KeyboardInterrupt: after the progress was saved.
    """
    about = _about(file, solver, seed)
    if (folder / RESULT).is_file():
        known: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        _require_same(known.get("about"), about, folder)
        say(f"{file.name}: already separated in {folder}")
        return known
    D = map_matrix(file)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    recovery, seconds = _begun(D, folder, about, solver, seed, say)
    _run(recovery, folder, about, seconds, say, file.name, at_least("passes", passes, 1))
    if recovery.progress.phase != "ended":
        raise ValueError(f"{file}: not finished after {recovery.steps_done} passes; raise --iterations and go on")
    verdict = recovery.progress.certificate
    if verdict is None or not verdict.is_accepted:
        reason = "" if verdict is None else verdict.reason
        raise ValueError(
            f"{file}: alternating projections are not confirmed ({reason}); DOP needs the matrix in memory, raise "
            "--max-memory"
        )
    say(f"{file.name}: writing {folder}")
    outliers = _write(recovery, D, folder)
    report = recovery.report()
    result = {
        "problem": folder.name,
        "attributes": {"matrix": file.stem},
        "seed": seed,
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
    (folder / PROGRESS).unlink(missing_ok=True)
    return result


def _about(file: Path, solver: AlternatingProjections, seed: int) -> dict[str, Any]:
    """What a result is of: it is not mixed with that of another file or of other settings."""
    state = file.stat()
    return {
        "file": str(file.resolve()),
        "bytes": state.st_size,
        "modified": state.st_mtime_ns,
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
    D: Tensor,
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


def _checked(D: Tensor, name: str) -> bool:
    """Whether entries are missing.

    Raises:
        ValueError: one is infinite, or all are missing.
    """
    missing, largest = 0, 0.0
    for rows in Observation(D, None, D).strips:
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


def _write(recovery: Recovery, D: Tensor, folder: Path) -> int:
    """Write both parts, strip by strip; return the number of outliers."""
    kind = np.lib.format.dtype_to_descr(np.dtype(str(D.dtype).removeprefix("torch.")))
    header = {"descr": kind, "fortran_order": False, "shape": tuple(D.shape)}

    def write(name: str, which: int) -> int:
        entries = 0

        def fill(file: BinaryIO) -> None:
            nonlocal entries
            np.lib.format.write_array_header_2_0(file, header)
            for rows in Observation(D, None, D).strips:
                part = recovery.rows_of_parts(rows)[which].to(D.dtype)
                entries += int(torch.count_nonzero(part))
                file.write(part.numpy().tobytes())

        stream_atomically(folder / name, fill)
        return entries

    write("recovered.npy", 0)
    return write("corruption.npy", 1)
