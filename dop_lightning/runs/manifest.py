"""Claim a folder for a run, and write its manifest and config."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dop_lightning.foundation.atomic import atomic_json, atomic_text
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.folder import CONFIG, VERSION, RunFolder


def claim(run: Path, mark: str) -> bool:
    """Check that a folder is free for a run, or holds the same run.

    Args:
        run: the folder.
        mark: the fingerprint of the run.

    Returns:
        Whether the same run was started there before.

    Raises:
        ValueError: the folder is a file, cannot be written, or holds another run, or one whose files are of another
            version.
    """
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run}: the folder of a run must be a folder, got a file")
    folder = RunFolder(run)
    if folder.has_run:
        if folder.check_resumable().fingerprint != mark:
            raise ValueError(
                f"{run}: holds another run, of other settings or data (see {folder.config_path}); "
                "choose another folder, or remove that one"
            )
        return True
    # another process may be starting the same run: it writes the manifest first
    if folder.config_path.exists() and not folder.manifest_path.exists():
        raise ValueError(f"{run}: holds a {CONFIG} that no run has written; choose another folder, or move that file")
    nearest = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{run}: cannot be written, {nearest} is not a folder that you may write to")
    return False


def write_manifest(
    run: Path,
    mark: str,
    config_text: str,
    problems: Sequence[Problem],
    mosaics: Mapping[str, Mosaic] | None = None,
    batches: Sequence[Sequence[str]] = (),
) -> None:
    """Save the resolved config, the fingerprint, and the list of all problems.

    Args:
        run: the folder.
        mark: the fingerprint of the run.
        config_text: the resolved config, YAML.
        problems: those that have a row in the table.
        mosaics: those of them that are recovered in tiles, by name.
        batches: names of the problems and tiles that are recovered together; kept when the run is resumed.
    """
    folder, mosaics = RunFolder(run), mosaics or {}
    entries = [
        {
            "name": problem.name,
            "seed": problem.seed,
            "shape": list(problem.observation.shape),
            "attributes": dict(problem.attributes),
            **(
                {"tiles": [tile.name for tile in mosaics[problem.name].tiles.values()]}
                if problem.name in mosaics
                else {}
            ),
        }
        for problem in problems
    ]
    # the manifest first: with it the folder is ours, and the next start writes a config that is missing
    manifest = {"version": VERSION, "fingerprint": mark, "problems": entries, "batches": [list(b) for b in batches]}
    atomic_json(folder.manifest_path, manifest)
    atomic_text(folder.config_path, config_text)
