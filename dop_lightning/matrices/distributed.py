"""Parts of :mod:`~dop_lightning.matrices.mapped` for rows distributed over ranks: steps, saved progress, results.

Each rank reads its rows of the matrix, saves its rows of U, and writes its rows of L and S.

Shapes: n rows, m columns.
"""

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.projections.ranks import Ranks, SingleProcess
from dop_lightning.engine.projections.saved import saved_progress
from dop_lightning.engine.projections.solver import Recovery
from dop_lightning.engine.projections.sweep import MIN_HEIGHT, strips_of
from dop_lightning.foundation import interrupts
from dop_lightning.foundation.atomic import record_file, write_atomically
from dop_lightning.foundation.saved_state import load_state, save_state
from dop_lightning.matrices.storage.source import StripMatrix

PROGRESS = "progress.pt"
"""File of the saved progress."""

PIECES = "progress-*.pt"
"""Files of the saved rows of U."""

Stop = Literal["", "SIGINT", "SIGTERM", "orphan"]
"""Reason to stop: none, a signal, or the exit of the parent process."""

REASONS: tuple[Stop, ...] = ("", "SIGINT", "SIGTERM", "orphan")


class StoppedError(Exception):
    """All ranks have stopped after the same pass, and the progress has been saved."""

    def __init__(self, reason: Stop) -> None:
        super().__init__(reason)
        self.reason = reason


def require_rows(n: int, m: int, size: int, name: str) -> None:
    """Raise an error if there are more ranks than strips of rows.

    Raises:
        ValueError: there are more ranks than strips of 16 rows, or more than columns.
    """
    most = min(n // MIN_HEIGHT, m)
    if size > most:
        raise ValueError(
            f"{name}: the {n} rows and {m} columns can be distributed over at most {max(1, most)} processes, with at "
            f"least {MIN_HEIGHT} rows each, got {size} processes"
        )


def text_of_first(make: Callable[[], str], ranks: SingleProcess) -> str:
    """Return the result of ``make``, which is only called on rank 0.

    Args:
        make: returns a text. If it raises an error, the other ranks lose rank 0.
        ranks: processes that share the rows.
    """
    text = make().encode() if ranks.rank == 0 else b""
    (length,) = ranks.broadcast(torch.tensor(len(text), device=ranks.device))
    if not int(length):
        return ""
    codes = list(text) if ranks.rank == 0 else [0] * int(length)
    (broadcast,) = ranks.broadcast(torch.tensor(codes, dtype=torch.uint8, device=ranks.device))
    return bytes(broadcast.tolist()).decode()


def run_passes(
    recovery: Recovery,
    ranks: SingleProcess,
    folder: Path,
    about: Mapping[str, Any],
    seconds: float,
    say: Callable[[str], object],
    describe: Callable[[Recovery], str],
    passes: int,
    stop: Callable[[], Stop],
    save_after: float,
) -> None:
    """Do all steps on all ranks. Save the progress periodically, at the end, and before stopping.

    Args:
        recovery: recovery with the rows of this rank.
        ranks: processes that share the rows.
        folder: output folder.
        about: description of the separation.
        seconds: time spent in earlier calls.
        say: called with one line per pass.
        describe: returns this line.
        passes: maximum number of passes.
        stop: returns the reason for this rank to stop, or an empty string.
        save_after: seconds between saves.

    Raises:
        RuntimeError: ranks made different decisions.
        StoppedError: a rank requested to stop.
        KeyboardInterrupt: the only rank was interrupted; the progress up to the previous pass has been saved.
    """
    start = saved_at = time.monotonic()
    first_step = done = recovery.steps_done
    kept = saved_progress(recovery.progress)

    def save() -> None:
        content = {"about": dict(about), "steps_done": done, "seconds": seconds + time.monotonic() - start}
        with interrupts.finishing():
            save_together(kept, ranks, folder, content)

    try:
        while recovery.progress.phase != "ended" and recovery.steps_done < passes:
            recovery.step()
            kept, done = saved_progress(recovery.progress), recovery.steps_done
            say(describe(recovery))
            reason, is_due = _agree(recovery, ranks, stop(), time.monotonic() - saved_at > save_after)
            now = recovery.progress
            if now.phase == "ended":
                break
            if reason or is_due:
                save()
                saved_at = time.monotonic()
            if reason:
                raise StoppedError(reason)
        if done > first_step:  # save at the end too, because writing the parts takes long
            save()
    except KeyboardInterrupt:
        if ranks.size == 1:  # with more ranks, the others would wait
            save()
            say(f"{folder.name}: stopped after {done} passes; run the same command to resume")
        raise


def _agree(recovery: Recovery, ranks: SingleProcess, reason: Stop, is_due: bool) -> tuple[Stop, bool]:
    """Return the reason of any rank to stop, and whether rank 0 requests a save.

    Raises:
        RuntimeError: ranks made different decisions.
    """
    now = recovery.progress
    decisions = [len(now.phase), now.estimate.rank, now.estimate.left.shape[1], now.threshold, now.wait, now.fits]
    every = ranks.every(REASONS.index(reason), float(is_due), *decisions)
    if not torch.equal(every[:, 2:], every[:1, 2:].expand(ranks.size, -1)):
        raise RuntimeError(f"processes made different decisions in pass {recovery.steps_done}: {every}")
    return REASONS[int(every[:, 0].max())], bool(every[0, 1])


def save_together(progress: Mapping[str, Any], ranks: SingleProcess, folder: Path, content: Mapping[str, Any]) -> None:
    """Save the progress: first the rows of all ranks, then the common state with the names of their files.

    A single rank saves one file.

    Args:
        progress: progress with the rows of this rank, see
            :func:`~dop_lightning.engine.projections.saved.saved_progress`.
        ranks: processes that share the rows.
        folder: output folder.
        content: entries to save in addition to the progress.
    """
    if ranks.size == 1:
        _save(folder / PROGRESS, {**progress, **content})
        return
    tensors = dict(progress["tensors"])
    left = tensors.pop("left")
    rows = ranks.own(ranks.total(len(left)))
    name = f"progress-{content['steps_done']}-{rows.start}.pt"
    _save(folder / name, {"left": left})
    starts = [int(start) for (start,) in ranks.every(rows.start).tolist()]  # also waits until all files are saved
    if ranks.rank == 0:
        pieces = [f"progress-{content['steps_done']}-{start}.pt" for start in starts]
        _save(folder / PROGRESS, {**progress, **content, "tensors": tensors, "pieces": pieces, "starts": starts})
    ranks.every()
    for old in folder.glob(f"progress-*-{rows.start}.pt"):
        if old.name != name:
            old.unlink(missing_ok=True)


def _save(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, lambda file: save_state(content, file))


def with_own_rows(saved: Mapping[str, Any], folder: Path, rows: slice) -> dict[str, Any]:
    """Return saved progress with the given rows of U, for any number of ranks at the time of saving.

    Args:
        saved: contents of ``progress.pt``.
        folder: output folder.
        rows: rows of U.

    Raises:
        ValueError: a file is missing or damaged.
    """
    state = dict(saved)
    names: Sequence[str] = state.pop("pieces", ())
    starts: Sequence[int] = state.pop("starts", ())
    if not names:
        left = state["tensors"]["left"][rows].clone()
    else:
        parts = []
        for k, (name, start) in enumerate(zip(names, starts, strict=True)):
            if start >= rows.stop or (k + 1 < len(starts) and starts[k + 1] <= rows.start):
                continue
            try:
                piece = load_state(folder / name)["left"]
            except ValueError as error:
                raise ValueError(f"{error}; remove {folder / PROGRESS} to start over") from None
            parts.append(piece[max(0, rows.start - start) : rows.stop - start])
        left = torch.cat(parts)
    state["tensors"] = {**state["tensors"], "left": left}
    return state


def write_together(
    recovery: Recovery, D: Tensor | StripMatrix, ranks: Ranks, folder: Path, names: tuple[str, str]
) -> int:
    """Write both parts as ``.npy``, with each rank writing its own rows; return the number of outliers.

    Ranks write to different offsets of one file at the same time. This is not possible in HDF5 without MPI, or in Zarr
    if a chunk has rows of two ranks.

    Args:
        recovery: recovery with the rows of this rank.
        D: these rows.
        ranks: processes that share the rows.
        folder: output folder.
        names: file names of L and S.
    """
    n, m = ranks.total(len(D)), D.shape[1]
    dtype = np.dtype(str(D.dtype).removeprefix("torch."))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n, m)}
    unfinished = [folder / f".{name}.part" for name in names]
    if ranks.rank == 0:
        for path in unfinished:
            with path.open("wb") as file:
                np.lib.format.write_array_header_2_0(file, header)
                file.truncate(file.tell() + n * m * dtype.itemsize)
    ranks.every()
    beginning = io.BytesIO()
    np.lib.format.write_array_header_2_0(beginning, header)
    place = beginning.tell() + ranks.own(n).start * m * dtype.itemsize
    entries = 0
    with unfinished[0].open("r+b") as low, unfinished[1].open("r+b") as sparse:
        low.seek(place)
        sparse.seek(place)
        for rows in strips_of(D):
            L, S = (part.to("cpu", D.dtype) for part in recovery.rows_of_parts(rows))
            entries += int(torch.count_nonzero(S))
            low.write(np.ascontiguousarray(L.numpy()).data)
            sparse.write(np.ascontiguousarray(S.numpy()).data)
        for opened in (low, sparse):
            opened.flush()
            os.fsync(opened.fileno())
    total = int(ranks.every(entries).sum())
    if ranks.rank == 0:
        for path, name in zip(unfinished, names, strict=True):
            path.replace(folder / name)
            record_file(folder / name)
    return total
