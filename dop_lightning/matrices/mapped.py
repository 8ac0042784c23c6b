"""Separate a matrix larger than memory, which is read and written strip by strip.

Only U and V are kept in memory, ``(n + m)·k`` numbers. Each step of alternating projections
(:class:`~dop_lightning.engine.projections.AlternatingProjections`) is one sequential pass over the file; the sparse
part is recomputed when needed. Rows may be distributed over ranks (:mod:`~dop_lightning.matrices.distributed`).

Shapes: n rows, m columns.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, Ranks, SingleProcess
from dop_lightning.engine.projections.saved import loaded_progress
from dop_lightning.engine.projections.solver import AlternatingProjections, Recovery
from dop_lightning.engine.projections.sweep import Observation, strips_of
from dop_lightning.foundation.atomic import checked_json, recorded_checksums, remove_temporary
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.checksums import read_json
from dop_lightning.foundation.folder_lock import FolderLock, in_use
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.foundation.saved_state import load_state
from dop_lightning.matrices.distributed import (
    PROGRESS,
    Stop,
    require_rows,
    run_passes,
    text_of_first,
    with_own_rows,
    write_together,
)
from dop_lightning.matrices.mapped_folder import (
    RESULT,
    advice,
    clear,
    copied,
    description,
    previous_rejection,
    previous_result,
    reject,
    require_same,
)
from dop_lightning.matrices.storage.formats import open_matrix, strip_suffix, write_matrix
from dop_lightning.matrices.storage.places import Place, locate
from dop_lightning.matrices.storage.source import BLOCK_BYTES, StripMatrix
from dop_lightning.matrices.table_strips import is_table

SAVE_AFTER = 30.0
"""Seconds between saves of the progress."""

SMALLEST, LARGEST = 1e-15, 1e15
"""Bounds on the largest entry; squares of entries beyond them are not representable in float32."""


class UnconfirmedError(ValueError):
    """The projections are not confirmed, in this call or an earlier one. All ranks raise this error."""


def separate_mapped(
    file: str | Path,
    folder: Path,
    solver: AlternatingProjections,
    seed: int = 0,
    say: Callable[[str], object] = print,
    passes: int = 500,
    index: Sequence[str] = (),
    ranks: Ranks | None = None,
    stop: Callable[[], Stop] = lambda: "",
    save_after: float = SAVE_AFTER,
) -> dict[str, Any]:
    """Separate the matrix in a file into ``recovered`` and ``corruption``, two files of the same format and shape.

    They have the dtype of the matrix if it is float32 or float64. Longer floats become float64, other dtypes float32.
    NaN entries are missing. The progress is saved in ``progress.pt`` between passes; call the function again to resume,
    with any number of ranks.

    Tables are first copied into a float64 ``.npy`` file in the folder, which is removed at the end; their parts are
    ``.npy`` files without labels. With several ranks, the results are always ``.npy`` files.

    A rejection is recorded in ``rejected.json``, so that the next call with the same file and settings ends at once.

    Args:
        file: ``.npy``, ``.h5``, ``.hdf5``, ``.zarr`` or ``.zarr.zip``; use ``file.h5::/path/of/array`` to choose one of
            several arrays. Or a table: ``.csv`` or ``.tsv``, optionally compressed as ``.gz``, or ``.parquet``.
        folder: output folder. Results are written at the end, ``result.json`` last.
        solver: settings of the solver.
        seed: seed of the initialization and of the hidden entries.
        say: called with one line per pass.
        passes: maximum number of passes, at least 1.
        index: names of the columns of a table that hold labels.
        ranks: all processes of this call, each of which gets the rows :meth:`Ranks.own` of the matrix; the function
            sets their number of rows. ``None`` means this process only.
        stop: returns the reason to stop after a pass, or an empty string; called on every rank.
        save_after: seconds between saves of the progress.

    Returns:
        The contents of ``result.json``.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the library that reads the format is not installed.
        ValueError: the file is not such a matrix, the folder holds results of another one, or another process is
            writing to the folder.
        UnconfirmedError: the projections are not confirmed.
        KeyboardInterrupt: interrupted, after saving the progress.
        StoppedError: ``stop`` returned a reason; the progress has been saved.
        LostRankError: another rank has exited.
    """
    place = locate(file)
    of_all = SINGLE_PROCESS if ranks is None else ranks
    D = None if is_table(place.path) else open_matrix(place)
    with FolderLock(folder) as lock:
        if text_of_first(lambda: _lock_folder(lock), of_all):
            raise ValueError(in_use(folder))
        return _separate(
            place,
            D,
            folder,
            solver,
            seed,
            say if of_all.rank == 0 else _ignore_line,
            passes,
            index,
            ranks,
            stop,
            save_after,
        )


def _separate(
    place: Place,
    D: Tensor | StripMatrix | None,
    folder: Path,
    solver: AlternatingProjections,
    seed: int,
    say: Callable[[str], object],
    passes: int,
    index: Sequence[str],
    ranks: Ranks | None,
    stop: Callable[[], Stop],
    save_after: float,
) -> dict[str, Any]:
    """Run :func:`separate_mapped` in a locked folder; ``D`` is ``None`` for tables."""
    of_all = SINGLE_PROCESS if ranks is None else ranks
    name, suffix = place.path.name, (strip_suffix(place.path) if ranks is None else None) or ".npy"
    about = description(place, solver, seed, index)
    known = previous_result(folder, say) if of_all.rank == 0 else None
    if _broadcast_flag(known is not None, of_all):
        known = read_json(folder / RESULT) if known is None else known
        require_same(known.get("about"), about, folder)
        say(f"{name}: already separated in {folder}")
        return known
    if before := text_of_first(lambda: previous_rejection(place, folder, about, of_all), of_all):
        raise UnconfirmedError(before)
    D = copied(place, folder, about, index, say, of_all) if D is None else D
    shape = D.shape[0], D.shape[1]
    if isinstance(D, StripMatrix) and D.decodings > 1:
        say(f"{name}: chunks are larger than {BLOCK_BYTES >> 20} MiB, so they are decoded {D.decodings} times per pass")
    if ranks is not None:
        require_rows(*shape, ranks.size, str(place))
        ranks.rows = shape[0]
        own = ranks.own(shape[0])
        D = D.part(own) if isinstance(D, StripMatrix) else D[own]
    start = time.monotonic()
    recovery, seconds = _start_recovery(D, folder, about, solver, seed, say, of_all)
    at_least("passes", passes, 1)
    describe = partial(_describe, name)
    run_passes(recovery, of_all, folder, about, seconds, say, describe, passes, stop, save_after)
    if recovery.progress.phase != "ended":
        raise ValueError(f"{place}: not finished after {recovery.steps_done} passes; raise --iterations to continue")
    verdict = recovery.progress.certificate
    if verdict is None or not verdict.is_accepted:
        reason = "" if verdict is None else verdict.reason
        if of_all.rank == 0:
            reject(folder, about, reason, recovery.steps_done)
        raise UnconfirmedError(f"{place}: alternating projections are not confirmed ({reason}); {advice(of_all)}")
    say(f"{name}: writing {folder}")
    with recorded_checksums() as files:
        if ranks is None:
            outliers = _write(recovery, D, folder, suffix)
        else:
            outliers = write_together(recovery, D, ranks, folder, ("recovered.npy", "corruption.npy"))
    report = recovery.report()
    result: dict[str, Any] = {
        "problem": folder.name,
        "attributes": {"matrix": folder.name},
        "seed": seed,
        "shape": list(shape),
        "tau": 0.0,
        "alpha": None,
        "status": "stable",
        "iterations": recovery.steps_done,
        "seconds": round(seconds + time.monotonic() - start, 3),
        "corruption_density": outliers / max(1, recovery.observed),
        "rank": float(recovery.progress.estimate.rank),
        "report": report,
        "about": about,
        "files": {path.name: checksum for path, checksum in files.items()},
    }
    if ranks is not None:
        result["ranks"] = {"processes": ranks.size, "sent": round(ranks.sent), "seconds": round(ranks.seconds, 3)}
    if of_all.rank == 0:
        checked_json(folder / RESULT, result)
        clear(folder)
    return result


def _lock_folder(lock: FolderLock) -> str:
    """Lock a folder and remove files left behind by killed processes; return why this failed, if it did."""
    if not lock.acquire():
        return "held"
    remove_temporary(lock.folder)
    return ""


def _ignore_line(_: str) -> None:
    """Ignore a line, because the first rank prints it."""


def _broadcast_flag(found: bool, ranks: SingleProcess) -> bool:
    """Return the value of rank 0 on all ranks."""
    return bool(ranks.broadcast(torch.tensor(found, device=ranks.device))[0])


def _start_recovery(
    D: Tensor | StripMatrix,
    folder: Path,
    about: Mapping[str, Any],
    solver: AlternatingProjections,
    seed: int,
    say: Callable[[str], object],
    ranks: SingleProcess,
) -> tuple[Recovery, float]:
    """Return the recovery, resumed if there is saved progress, and the time spent so far in seconds."""
    saved: dict[str, Any] | None = None
    if _broadcast_flag((folder / PROGRESS).is_file(), ranks):
        try:
            saved = load_state(folder / PROGRESS)
        except ValueError as error:
            raise ValueError(f"{error}; remove it to start over") from None
        require_same(saved["about"], about, folder)
    has_gaps = _check_entries(D, about["file"], ranks)
    D = _to_device(D, ranks.device, about["file"])
    empty = torch.empty(0, dtype=torch.int64, device=ranks.device)
    recovery = Recovery(solver, Observation(D, None, empty, has_gaps), seed, begins=saved is None, ranks=ranks)
    if saved is None:
        return recovery, 0.0
    saved = with_own_rows(saved, folder, ranks.own(ranks.total(len(D))))
    recovery.progress = loaded_progress(saved, torch.empty(0, dtype=D.dtype, device=ranks.device))
    recovery.steps_done = int(saved["steps_done"])
    say(f"{folder.name}: resuming after {recovery.steps_done} passes")
    return recovery, float(saved["seconds"])


def _to_device(D: Tensor | StripMatrix, device: torch.device, name: str) -> Tensor | StripMatrix:
    """Copy the rows of this rank to its device; on a CPU, they stay in the file.

    Raises:
        ValueError: the rows do not fit in the memory of the device.
    """
    if device.type == "cpu":
        return D
    try:
        placed = torch.empty(D.shape, dtype=D.dtype, device=device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = D.numel() * D.dtype.itemsize / 2**30
        raise ValueError(
            f"{name}: the {len(D)} rows per process require {size:.1f} GiB, which exceeds the memory of {device}; use "
            "more devices"
        ) from None
    for rows in strips_of(D):
        placed[rows] = D[rows]
    return placed


def _check_entries(D: Tensor | StripMatrix, name: str, ranks: SingleProcess) -> bool:
    """Check the entries, and return whether any are missing on any rank.

    Raises:
        ValueError: an entry is infinite, all are missing, or the largest one is out of range.
    """
    missing, infinite, largest = 0, False, 0.0
    for rows in strips_of(D):
        strip = D[rows]
        missing += int(torch.isnan(strip).sum())
        if infinite := bool(torch.isinf(strip).any()):
            break
        largest = max(largest, float(torch.nan_to_num(strip, nan=0.0).abs().max()))
    every = ranks.every(missing, infinite, largest)
    missing, largest = int(every[:, 0].sum()), float(every[:, 2].max())
    if bool(every[:, 1].any()):
        raise ValueError(f"{name}: entries must be finite, or NaN if missing, got an infinite entry")
    if missing == ranks.total(len(D)) * D.shape[1]:
        raise ValueError(f"{name}: all entries are missing")
    if largest and not SMALLEST < largest < LARGEST:
        raise ValueError(
            f"{name}: the largest entry must be between {SMALLEST:.0e} and {LARGEST:.0e}, got {largest:.3g}; use "
            "another unit"
        )
    return missing > 0


def _describe(name: str, recovery: Recovery) -> str:
    """Return a progress line for the last pass."""
    now = recovery.progress
    residual = f"{now.energies[-1]:.2g}" if now.energies else "–"
    return (
        f"{name}: pass {recovery.steps_done}, rank {now.estimate.rank}, {100 * now.share:.1f} % outliers, "
        f"residual {residual}"
    )


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
