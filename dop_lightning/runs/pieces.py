"""Runs of matrices that are read in pieces. The manifest grows with each result; each matrix resumes separately."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dop_lightning.foundation.atomic import checked_json, make_folder, written_together
from dop_lightning.problems.problem import Attribute
from dop_lightning.runs.copies import check_manifest, copy_of, require_original
from dop_lightning.runs.folder import VERSION, RunFolder

PIECES = "pieces"
"""Replaces the fingerprint of the settings in the manifest."""


def has_pieces(run: Path) -> bool:
    """Return whether a folder contains the results of matrices that were read in pieces.

    Raises:
        ValueError: the manifest is damaged, or of a later version.
        OSError: the manifest cannot be read.
    """
    folder = RunFolder(run)
    return folder.has_run and folder.manifest().fingerprint == PIECES


def require_pieces(run: Path) -> None:
    """Refuse a folder that contains another kind of run.

    Raises:
        ValueError: the folder contains another kind of run, or its manifest is damaged, or missing although a copy
            exists.
        OSError: the manifest cannot be read.
    """
    require_original(RunFolder(run).manifest_path)
    if RunFolder(run).has_run and not has_pieces(run):
        raise ValueError(
            f"{run}: holds a run of matrices that were read into memory; use another --out for matrices that are "
            "read in pieces"
        )


def add_piece(run: Path, name: str, seed: int, shape: Sequence[int], attributes: Mapping[str, Attribute]) -> None:
    """Add a matrix with its result to the manifest of a folder. Creates the manifest if necessary.

    Args:
        run: folder of the run.
        name: name of the matrix and its folder.
        seed: seed of its recovery.
        shape: ``(n, m)``.
        attributes: attributes of its result.

    Raises:
        ValueError: the manifest is damaged.
        OSError: the manifest cannot be read or written.
    """
    folder = RunFolder(run)
    problems = list(folder.manifest().problems) if folder.has_run else []
    entry = {"name": name, "seed": seed, "shape": list(shape), "attributes": dict(attributes), "mark": "", "rates": {}}
    places = (folder.manifest_path, copy_of(folder.manifest_path))
    if entry in problems and not any(check_manifest(path) for path in places):
        return
    problems = [*(other for other in problems if other["name"] != name), entry]
    manifest = {"version": VERSION, "fingerprint": PIECES, "settings": PIECES, "problems": problems, "batches": []}
    make_folder(copy_of(folder.manifest_path).parent)
    with written_together():
        for path in places:
            checked_json(path, manifest)
