"""Files of a job that the page may read. Requests select them by key, and never contain paths."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dop_lightning.cli.app.job import PAGE_FOLDER, Job

REPORT = "report.html"

PICTURES = ("preview", "observation", "recovered", "corruption", "corruption_probability", "comparison")
"""Pictures in the folder of a problem that the page may show."""

VIDEOS = ("background", "foreground", "mask", "comparison")
"""Videos of a scene."""

MATRICES = (".csv", ".tsv", ".h5", ".hdf5", ".zarr.zip", ".npy")
"""Suffixes of the parts of matrices, tables first."""

SUMMARY = ("status", "iterations", "seconds", "alpha", "rank", "corruption_density", "mask_share", "report")
"""Keys of a result that the page may show."""


def problem_folder(job: Job) -> Path | None:
    """Return the folder of the only problem of a run, or ``None`` if it does not exist yet."""
    try:
        manifest = json.loads((job.run / "manifest.json").read_text(encoding="utf-8"))
        name = str(manifest["problems"][0]["name"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    folder = job.run / name
    return folder if folder.parent == job.run and folder.is_dir() else None


def result_of(job: Job) -> Mapping[str, Any]:
    """Return ``result.json`` of a job, or an empty mapping if it does not exist."""
    folder = problem_folder(job)
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def files_of(job: Job) -> dict[str, Path]:
    """Return the existing files by their key.

    ``result`` is the recovered file in the format of the uploaded file, as written by the command.
    """
    folder = problem_folder(job)
    found = {"thumbnail": job.folder / PAGE_FOLDER / "thumbnail.png", "log": job.log}
    found |= {
        what: job.mask(what)
        for what, is_corrected in zip(("mask", "undamaged"), job.corrected, strict=True)
        if is_corrected
    }
    if job.state in ("done", "stopped"):
        found["report"] = job.run / REPORT
    if folder is not None:
        found |= {name: folder / f"{name}.png" for name in PICTURES}
        found["probability"] = folder / "corruption_probability.npy"
        if job.kind == "recover":
            found["result"] = folder / f"recovered{job.found.get('suffix', '.npy')}"
        else:
            found |= {"result": _part_file(folder, "recovered"), "outliers": _part_file(folder, "corruption")}
            found |= {f"video-{name}": folder / f"{name}.mp4" for name in VIDEOS}
    return {name: path for name, path in found.items() if path.is_file()}


def _part_file(folder: Path, name: str) -> Path:
    """Return the file of a part of a matrix, preferably in the format of the uploaded file."""
    return next((path for suffix in MATRICES if (path := folder / f"{name}{suffix}").is_file()), folder / f"{name}.npy")


def download_name(job: Job, what: str, path: Path) -> str:
    """Return the file name of a download."""
    stem = Path(job.name).stem
    words = {"result": "restored" if job.kind == "recover" else "low-rank", "outliers": "sparse"}
    return f"{stem}-{words.get(what, what.removeprefix('video-'))}{path.suffix}"


def summary_of(job: Job) -> dict[str, Any]:
    """Return the entries of the result that the page may show."""
    result = result_of(job)
    return {key: result[key] for key in SUMMARY if result.get(key) is not None}
