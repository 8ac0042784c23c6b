"""Find damaged files of a run by the checksums in ``result.json``. Does not import torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dop_lightning.foundation.atomic import checked_json
from dop_lightning.foundation.checksums import MISSING, file_fault
from dop_lightning.runs.folder import RESULT, RunFolder

FILES = "files"
"""Key of a result: the checksums of the other files in its folder."""


class Damage(NamedTuple):
    """A damaged file.

    Attributes:
        path: path of the file.
        what: description of the damage.
    """

    path: Path
    what: str


def names_in(folder: Path, files: Mapping[Path, str]) -> dict[str, str]:
    """Return checksums by file name, relative to a folder.

    Args:
        folder: folder of a problem.
        files: checksums by path; files outside the folder are skipped.
    """
    return {path.relative_to(folder).as_posix(): sum for path, sum in files.items() if path.is_relative_to(folder)}


def update_files(folder: Path, files: Mapping[Path, str]) -> None:
    """Update the checksums of rewritten files in the result of a folder. No-op without a result.

    Raises:
        ValueError: the result is damaged.
        OSError: the result cannot be read or written.
    """
    if (folder / RESULT).is_file():
        result = RunFolder(folder.parent).result(folder.name)
        if FILES in result:
            checked_json(folder / RESULT, {**result, FILES: {**result[FILES], **names_in(folder, files)}})


def find_damage(run: Path, folder: str) -> list[Damage]:
    """Return the damaged files of a problem that has a result. Results of earlier versions have no checksums.

    Args:
        run: folder of the run.
        folder: name of the problem's folder.
    """
    path = run / folder / RESULT
    try:
        result = RunFolder(run).result(folder)
    except (FileNotFoundError, NotADirectoryError):
        return [Damage(path, MISSING)]
    except (OSError, ValueError) as error:
        return [Damage(path, str(error).removeprefix(f"{path}: "))]
    files = {path.parent / name: expected for name, expected in result.get(FILES, {}).items()}
    return [Damage(file, fault) for file, expected in files.items() if (fault := file_fault(file, expected))]


def require_intact(path: Path, result: Mapping[str, Any]) -> None:
    """Compare a file with its checksum in the result of the problem.

    Args:
        path: path of the file, in the folder of the problem.
        result: result of the problem.

    Raises:
        ValueError: the file is damaged.
    """
    expected = result.get(FILES, {}).get(path.name)
    if expected is not None and (fault := file_fault(path, expected)):
        raise ValueError(f"{path}: {fault}; start the run again to rewrite it")
