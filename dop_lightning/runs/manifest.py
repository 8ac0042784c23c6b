"""Claim a folder for a run, and write its manifest and config."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dop_lightning.foundation.atomic import atomic_text, checked_json, written_together
from dop_lightning.foundation.folder_lock import FolderLock
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.checkpoints import LAST
from dop_lightning.runs.copies import copy_of, require_original, sealed
from dop_lightning.runs.curves import file_stamps
from dop_lightning.runs.folder import CONFIG, VERSION, RunFolder
from dop_lightning.runs.growth import KnownRun, recognize
from dop_lightning.runs.request import RunRequest


def stamps(run: Path) -> dict[Path, tuple[int, int]]:
    """Return the modification times and sizes of the manifest and the checkpoints of a folder.

    A start that reads them before it holds the folder's lock compares them afterwards.
    """
    return file_stamps([RunFolder(run).manifest_path, *(run / LAST).glob("*.pt")])


def claim(run: Path, request: RunRequest) -> KnownRun | None:
    """Check that a folder is free for a run, or contains the same run and only requested problems.

    Args:
        run: folder of the run.
        request: settings and problems of this start.

    Returns:
        The part of the request that the folder already contains; ``None`` if no run was started there.

    Raises:
        ValueError: the folder is a file, is not writable, contains another run or problems that are not requested,
            contains a run with files of another version, or its manifest is missing although a copy exists.
    """
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run}: the folder of a run must be a folder, got a file")
    folder = RunFolder(run)
    if folder.has_run:
        return recognize(folder, request)
    if copy_of(folder.manifest_path).is_file() and not folder.manifest_path.exists():
        with FolderLock(run) as lock:
            lock.require()  # first reports a run that is still active
        require_original(folder.manifest_path)
    # another process may be starting the same run: it writes the manifest first
    if folder.config_path.exists() and not folder.manifest_path.exists():
        raise ValueError(
            f"{run}: contains a {CONFIG} that was not written by a run; choose another folder, or move the file"
        )
    nearest = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{run}: cannot be written, {nearest} is not a folder that you may write to")
    return None


def write_manifest(
    run: Path,
    request: RunRequest,
    config_text: str,
    problems: Sequence[Problem] | None = None,
    mosaics: Mapping[str, Mosaic] | None = None,
    batches: Sequence[Sequence[str]] = (),
    fingerprint: str = "",
    threads: int | None = None,
) -> None:
    """Save the resolved config and the list of all problems with their digests.

    Args:
        run: folder of the run.
        request: settings and problems of this start.
        config_text: resolved config, as YAML.
        problems: problems of the request, with their names in the run; by default as in the request.
        mosaics: tiles of the problems that are recovered in tiles, by name.
        batches: names of the problems and tiles of each batch; kept when the run is resumed.
        fingerprint: fingerprint of the run at its first start, if this is a later one.
        threads: number of threads per process, kept when the run is resumed; not recorded if ``None``.
    """
    folder = RunFolder(run)
    problems = request.wholes if problems is None else problems
    mosaics = request.mosaics if mosaics is None else mosaics
    entries = [
        {
            "name": problem.name,
            "seed": problem.seed,
            "shape": list(problem.shape),
            "attributes": dict(problem.attributes),
            "mark": digest,
            "rates": rates,
            **(
                {"tiles": [tile.name for tile in mosaics[problem.name].tiles.values()]}
                if problem.name in mosaics
                else {}
            ),
        }
        for problem, digest, rates in zip(problems, request.digests, request.rates, strict=True)
    ]
    manifest = {
        "version": VERSION,
        "fingerprint": fingerprint or request.fingerprint,
        "settings": request.settings_digest,
        "problems": entries,
        "batches": [list(batch) for batch in batches],
        **({} if threads is None else {"threads": threads}),
    }
    # the manifest claims the folder, so the copy of the config is written first, in case this start is stopped
    with written_together():
        atomic_text(copy_of(folder.config_path), sealed(config_text))
        checked_json(folder.manifest_path, manifest)
        atomic_text(folder.config_path, sealed(config_text))
        checked_json(copy_of(folder.manifest_path), manifest)
