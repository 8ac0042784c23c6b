"""Read the folder of a run: manifest, settings, results and curves. Does not import torch."""

import csv
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dop_lightning.foundation.checksums import read_json
from dop_lightning.runs.copies import copy_of, read_config, read_manifest

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.csv"
TABLE = "results.csv"
RESULT = "result.json"
"""``result.json`` is in the folder of a problem; the other files are in the folder of the run."""

LOCK = Path("checkpoints") / "lock"
"""Lock file: each process locks the numbers of its batches in it, see :mod:`dop_lightning.runs.locks`."""

VERSION = 3
"""Version of the files of a run. Increase it when their meaning changes.

Files without a version are of version 1. This release reads the results of all versions up to this one.
"""

RESUMABLE = 2
"""Earliest version of a run that this release can resume. Resuming updates its files to :data:`VERSION`."""


@dataclass(frozen=True)
class RunManifest:
    """Contents of ``manifest.json``.

    Attributes:
        fingerprint: fingerprint of the run at its first start; its checkpoints contain it.
        problems: one entry per problem: ``name``, ``seed``, ``shape``, ``attributes``, ``tiles`` if it has any, and
            from version 3 on ``mark`` (a digest) and ``rates``, see :mod:`dop_lightning.runs.digests`.
        batches: names of the problems and tiles of each batch.
        version: version of the files of the run, at most :data:`VERSION`.
        settings: digest of the settings that apply to all problems; empty before version 3.
        threads: number of threads per process; ``None`` if it was not recorded.
    """

    fingerprint: str
    problems: list[dict[str, Any]]
    batches: list[list[str]]
    version: int
    settings: str = ""
    threads: int | None = None


class Metric(NamedTuple):
    """A row of ``metrics.csv``."""

    problem: str
    iteration: int
    tag: str
    value: float


NOT_IN_TABLES = ("report", "machine", "files", "checksum")
"""Keys of a result that no table has."""


def _brief_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as tables need it; its keys are shared with those of others."""
    return {sys.intern(key): value for key, value in result.items() if key not in NOT_IN_TABLES}


class RunFolder:
    """The folder of a run. Each method reads the files again, since the run may still be writing them.

    Errors name the file: ``OSError`` if it cannot be read, ``ValueError`` if it is not a file of a run.

    Args:
        path: path of the folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_path(self) -> Path:
        """``config.yaml``."""
        return self.path / CONFIG

    @property
    def manifest_path(self) -> Path:
        """``manifest.json``."""
        return self.path / MANIFEST

    @property
    def metrics_path(self) -> Path:
        """``metrics.csv``."""
        return self.path / METRICS

    @property
    def has_run(self) -> bool:
        """Whether a run was started in this folder."""
        return self.manifest_path.is_file()

    @property
    def is_unstarted(self) -> bool:
        """Whether the first start was stopped before its first problem: it had not written all settings."""
        return (
            copy_of(self.config_path).is_file()
            and not self.config_path.exists()
            and not copy_of(self.manifest_path).exists()
        )

    def manifest(self) -> RunManifest:
        """Read the manifest.

        Raises:
            ValueError: the file is damaged, or its version is later than this package supports.
            OSError: the file cannot be read.
        """
        try:
            with _convert_errors(self.manifest_path, "a manifest"):
                content = read_manifest(self.manifest_path)
                version = int(content.get("version", 1))
        except ValueError as error:
            if self.is_unstarted:
                raise ValueError(f"{error}; no problem had started: remove it to start again") from error
            raise
        if version > VERSION:  # the rest of the file may have another structure
            raise ValueError(
                f"{self.path}: was written by a later version of dop_lightning (run files of version {version}, this "
                f"version reads up to {VERSION}); update dop_lightning, or choose another folder"
            )
        with _convert_errors(self.manifest_path, "a manifest"):
            problems = [{**entry, "name": str(entry["name"])} for entry in content["problems"]]
            for entry in problems:
                _require_inside(entry["name"])
            batches = content.get("batches", []) if version == 1 else content["batches"]
            settings = ""
            if version >= VERSION:
                settings = content["settings"]
                problems = [{**entry, "mark": entry["mark"], "rates": dict(entry["rates"])} for entry in problems]
            threads = None if content.get("threads") is None else max(1, int(content["threads"]))
            return RunManifest(content["fingerprint"], problems, batches, version, settings, threads)

    def check_resumable(self) -> RunManifest:
        """Check that this version of the package can resume the run, and return the manifest.

        Raises:
            ValueError: the files are of a later version or older than :data:`RESUMABLE`, or the manifest is damaged.
            OSError: the manifest cannot be read.
        """
        manifest = self.manifest()
        if manifest.version < RESUMABLE:
            raise ValueError(
                f"{self.path}: was written by an earlier version of dop_lightning (run files of version "
                f"{manifest.version}, this version resumes {RESUMABLE} to {VERSION}); start again in another folder "
                "from your own settings, or finish it with that version"
            )
        return manifest

    def config_text(self) -> str | None:
        """Read the resolved settings as YAML text; ``None`` if the file is missing.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.config_path.is_file():
            return None
        with _convert_errors(self.config_path, "a config"):
            return read_config(self.config_path).decode("utf-8", "replace")

    def setting(self, *keys: str) -> Any:
        """Read a setting of the config, for example ``setting("model", "alpha")``.

        Raises:
            ValueError: the file is damaged, or the setting is missing.
            OSError: the file cannot be read.
        """
        import yaml

        with _convert_errors(self.config_path, "a config", yaml.YAMLError):
            value = yaml.safe_load(read_config(self.config_path).decode("utf-8"))
            for key in keys:
                value = value[key]
            return value

    def section(self, *keys: str) -> dict[str, Any]:
        """Read a section of the config; by default the whole config.

        Raises:
            ValueError: the file is damaged, or the section is missing.
            OSError: the file cannot be read.
        """
        section = self.setting(*keys)
        if not isinstance(section, dict):
            what = ".".join(keys) or "the file"
            raise ValueError(f"{self.config_path}: not a config written by dop ({what} contains no settings)")
        return section

    def result(self, folder: str) -> dict[str, Any]:
        """Read the result of a problem.

        Args:
            folder: folder of the problem, relative to the folder of the run.

        Raises:
            ValueError: the file is damaged.
            OSError: the file cannot be read.
        """
        path = self.path / folder / RESULT
        with _convert_errors(path, "a result"):
            result = read_json(path)
            return {**result, "problem": result["problem"]}

    def result_paths(self) -> Iterator[Path]:
        """Yield where the results of problems are, or would be: one path at a time, since there may be thousands."""
        if self.path.is_dir():
            with os.scandir(self.path) as entries:
                for entry in entries:
                    yield self.path / entry.name / RESULT

    def results(self, names: Sequence[str] | None = None, brief: bool = False) -> list[dict[str, Any]]:
        """Read the results of all problems.

        Args:
            names: of the problems, in the order of the results; by default those of the manifest.
            brief: whether to leave out what no table has, which is most of the memory.

        Raises:
            ValueError: a file is damaged.
            OSError: a file cannot be read.
        """
        folders = sorted(path.parent.name for path in self.result_paths() if path.is_file())
        found = (self.result(folder) for folder in folders)
        results = {result["problem"]: _brief_result(result) if brief else result for result in found}
        if names is None:
            if not self.has_run:
                return list(results.values())
            names = [entry["name"] for entry in self.manifest().problems]
        return [results[name] for name in names if name in results]

    def metrics(self) -> Iterator[Metric]:
        """Yield the rows of the curves, in the order of evaluation. An incomplete last line is skipped.

        Raises:
            ValueError: a row is damaged.
            OSError: the file cannot be read.
        """
        with self.metrics_path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(line for line in file if line.endswith("\n")):
                try:
                    yield Metric(row["problem"], int(row["iteration"]), row["tag"], float(row["value"]))
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{self.metrics_path}: not curves written by dop ({error})") from error


def _require_inside(name: str) -> None:
    """Check that the name of a problem is a valid folder name in the run."""
    if name in ("", ".", "..") or {"/", "\\", "\0"} & set(name):
        raise ValueError(f"the name of a problem must be a valid folder name, got {name!r}")


@contextmanager
def _convert_errors(path: Path, what: str, *errors: type[Exception]) -> Iterator[None]:
    """Convert errors of parsing a file, including ``errors``, to a ``ValueError`` that names the file."""
    kinds: tuple[type[Exception], ...] = (ValueError, LookupError, TypeError, AttributeError, *errors)
    try:
        yield
    except kinds as error:
        raise ValueError(f"{path}: not {what} written by dop ({error})") from error


def default_folder(experiment: str) -> Path:
    """Return ``runs/<experiment>/<time>``. The process that starts a run calls this once."""
    return Path("runs") / experiment / time.strftime("%Y-%m-%d_%H-%M-%S")


def saved_settings(run: Path, *section: str) -> dict[str, Any]:
    """Return a section of the config of a run; empty if there is no config or it cannot be read.

    Errors are ignored here: an invalid folder is refused when the run starts.
    """
    try:
        return RunFolder(run).section(*section)
    except (OSError, ValueError):
        return {}


def planned_batches(run: Path) -> list[list[str]] | None:
    """Return the batches of a run, as formed at its first start; ``None`` if there is no run.

    Raises:
        ValueError: the manifest is damaged, or the files of the run are of a version that cannot be resumed.
    """
    folder = RunFolder(run)
    return folder.check_resumable().batches if folder.has_run else None
