"""The files of a job that the page can read. There are no others: names of files never come from a request."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dop_lightning.cli.app.job import OWN, Job

REPORT = "report.html"

PICTURES = ("preview", "observation", "recovered", "corruption", "corruption_probability", "comparison")
"""Pictures in the folder of a problem that are shown."""

VIDEOS = ("background", "foreground", "mask", "comparison")
"""Videos of a scene."""

MATRICES = (".csv", ".tsv", ".h5", ".hdf5", ".zarr.zip", ".npy")
"""Suffixes of the parts of matrices, tables first."""

SUMMARY = ("status", "iterations", "seconds", "alpha", "rank", "corruption_density", "mask_share", "report")
"""What of a result is shown."""


def problem_folder(job: Job) -> Path | None:
    """Return the folder of the only problem of a run, as soon as there is one."""
    try:
        manifest = json.loads((job.run / "manifest.json").read_text(encoding="utf-8"))
        name = str(manifest["problems"][0]["name"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    folder = job.run / name
    return folder if folder.parent == job.run and folder.is_dir() else None


def result_of(job: Job) -> Mapping[str, Any]:
    """Return ``result.json`` of a job, empty without one."""
    folder = problem_folder(job)
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def files_of(job: Job) -> dict[str, Path]:
    """Return the files that exist by the name that the page knows them by.

    ``result`` is the recovered file in the format of the one that came, as the command has written it.
    """
    folder = problem_folder(job)
    found = {"thumbnail": job.folder / OWN / "thumbnail.png", "log": job.log}
    found |= {what: job.mask(what) for what, there in zip(("mask", "undamaged"), job.corrected, strict=True) if there}
    if job.state in ("done", "stopped"):
        found["report"] = job.run / REPORT
    if folder is not None:
        found |= {name: folder / f"{name}.png" for name in PICTURES}
        found["probability"] = folder / "corruption_probability.npy"
        if job.kind == "recover":
            found["result"] = folder / f"recovered{job.found.get('suffix', '.npy')}"
        else:
            found |= {"result": _part(folder, "recovered"), "outliers": _part(folder, "corruption")}
            found |= {f"video-{name}": folder / f"{name}.mp4" for name in VIDEOS}
    return {name: path for name, path in found.items() if path.is_file()}


def _part(folder: Path, name: str) -> Path:
    """Return the file of a part of a matrix, in the format that is most like the one that came."""
    return next((path for suffix in MATRICES if (path := folder / f"{name}{suffix}").is_file()), folder / f"{name}.npy")


def download_name(job: Job, what: str, path: Path) -> str:
    """Return the name that a file gets in the folder of downloads."""
    stem = Path(job.name).stem
    words = {"result": "restored" if job.kind == "recover" else "low-rank", "outliers": "sparse"}
    return f"{stem}-{words.get(what, what.removeprefix('video-'))}{path.suffix}"


def summary_of(job: Job) -> dict[str, Any]:
    """Return what of the result is shown."""
    result = result_of(job)
    return {key: result[key] for key in SUMMARY if result.get(key) is not None}
