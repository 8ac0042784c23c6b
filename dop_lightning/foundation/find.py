"""Find files by name, folder, glob pattern, or name of a bundled sample."""

import glob
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dop_lightning.foundation.nearest import did_you_mean, nearest
from dop_lightning.foundation.user_paths import user_path

MAX_COMPARED = 1000
"""Maximum number of files in a folder that are compared with a name that does not exist, to suggest another."""

Patterns = str | Path | Sequence[str | Path]

FOLDERS = (".zarr",)
"""Suffixes of data stores that are folders."""


def find_files(patterns: Patterns, suffixes: Sequence[str], samples: Mapping[str, Path] | None = None) -> list[Path]:
    """List the files that match ``patterns``, in the order of the patterns and without duplicates.

    Args:
        patterns: one entry or several. An entry is a file with any suffix; a store that is a folder (:data:`FOLDERS`);
            another folder, of which all files with one of the ``suffixes`` are listed, sorted by name; a pattern with
            ``*``, ``?``, ``[…]`` or ``**``, treated likewise; or a key of ``samples``. ``~`` is expanded to the home
            folder. Existing files take precedence over samples of the same name.
        suffixes: lower-case suffixes including the dot. Matching ignores case.
        samples: bundled files by name.

    Raises:
        ValueError: there are no entries, or an entry matches no file. The message lists the samples.
    """
    entries = [patterns] if isinstance(patterns, str | Path) else list(patterns)
    if not entries:
        raise ValueError("files must have at least one entry, got none")
    found: dict[Path, Path] = {}
    for entry in entries:
        for path in _find_entry(entry, suffixes, samples or {}):
            # `a.png` and `*.png` together match a.png twice, but names of problems are unique in a run.
            found.setdefault(path.absolute(), path)
    return list(found.values())


def existing_file(path: str | Path) -> Path:
    """Return ``path`` if it is a non-empty file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: ``path`` is a folder or an empty file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file{_suggest_similar(path)}")
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, got {'a folder' if path.is_dir() else 'something else'}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    return path


def _find_entry(entry: str | Path, suffixes: Sequence[str], samples: Mapping[str, Path]) -> list[Path]:
    text = str(entry)
    path = user_path(text)
    wanted = ", ".join(suffixes)
    hint = f", or the name of a sample: {', '.join(samples)}" if samples else ""
    if not text.strip():
        raise ValueError(f"{text!r} is not a file name; pass a file, a folder, a pattern such as *{suffixes[0]}{hint}")
    is_store = path.suffix.lower() in FOLDERS and path.suffix.lower() in suffixes
    if path.is_dir() and not is_store:
        found = _sorted_files([path / name for name in os.listdir(path) if not name.startswith(".")], suffixes)  # noqa: PTH208
        if not found:
            raise ValueError(f"{text}: the folder contains no file with suffix {wanted}{hint}")
        return found
    if path.exists():
        return [path]
    if text in samples:
        return [samples[text]]
    if glob.has_magic(text):
        # Unlike Path.glob, glob.glob supports absolute patterns and skips hidden files.
        found = _sorted_files([Path(name) for name in glob.glob(str(path), recursive=True)], suffixes)  # noqa: PTH207
        if not found:
            raise ValueError(f"{text}: the pattern matches no file with suffix {wanted}{hint}")
        return found
    raise ValueError(
        f"{text}: no such file or folder; pass a file, a folder, a pattern such as *{suffixes[0]}{hint}"
        f"{_suggest_similar(path) or did_you_mean(text, samples, quote=False)}"
    )


def _suggest_similar(path: Path) -> str:
    """Return the end of a message that suggests a file in the same folder with a similar name, if any."""
    try:
        names = [other.name for other in itertools.islice(path.parent.iterdir(), MAX_COMPARED)]
    except OSError:
        return ""
    close = nearest(path.name, names)
    return f"; did you mean {path.with_name(close)}?" if close else ""


def _sorted_files(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    files = [path for path in paths if path.name.lower().endswith(tuple(suffixes)) and path.is_file()]
    # Sort by name ignoring case, then by case, for the same order on every system.
    return sorted(files, key=lambda path: (str(path).lower(), str(path)))
