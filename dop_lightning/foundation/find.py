"""Which files a user means: a name, a folder, a pattern with ``*``, or the name of a bundled sample."""

import glob
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dop_lightning.foundation.nearest import did_you_mean, nearest
from dop_lightning.foundation.user_paths import user_path

MOST_COMPARED = 1000
"""Files of a folder that are compared with a name that does not exist."""

Patterns = str | Path | Sequence[str | Path]

FOLDERS = (".zarr",)
"""Suffixes of stores that are folders of many files."""


def find_files(patterns: Patterns, suffixes: Sequence[str], samples: Mapping[str, Path] | None = None) -> list[Path]:
    """List the files that ``patterns`` name, in the order of the patterns, each file once.

    Args:
        patterns: one entry or several. An entry is a file (of any suffix: its reader judges it), or a store that is a
            folder (:data:`FOLDERS`); another folder, for the files in it with one of the ``suffixes``, sorted by name;
            a pattern with ``*``, ``?``, ``[…]`` or ``**``, likewise; or a key of ``samples``. ``~`` is the home folder.
            What exists wins over a sample of that name.
        suffixes: lower case, with their dot; files match in any case.
        samples: bundled files by name.

    Raises:
        ValueError: there is no entry, or one that names nothing; the message names it, and the samples there are.
    """
    entries = [patterns] if isinstance(patterns, str | Path) else list(patterns)
    if not entries:
        raise ValueError("files must be named by at least one entry, got none")
    found: dict[Path, Path] = {}
    for entry in entries:
        for path in _find(entry, suffixes, samples or {}):
            # `a.png` and `*.png` together name a.png twice, and a run has one problem of a name.
            found.setdefault(path.absolute(), path)
    return list(found.values())


def existing_file(path: str | Path) -> Path:
    """Return ``path`` if it is a file with something in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, or empty.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file{_alike(path)}")
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, got {'a folder' if path.is_dir() else 'something else'}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    return path


def _find(entry: str | Path, suffixes: Sequence[str], samples: Mapping[str, Path]) -> list[Path]:
    text = str(entry)
    path = user_path(text)
    wanted = ", ".join(suffixes)
    hint = f", or the name of a sample: {', '.join(samples)}" if samples else ""
    if not text.strip():
        raise ValueError(
            f"{text!r} names no file; allowed are a file, a folder, a pattern such as *{suffixes[0]}{hint}"
        )
    is_store = path.suffix.lower() in FOLDERS and path.suffix.lower() in suffixes
    if path.is_dir() and not is_store:
        found = _matching([path / name for name in os.listdir(path) if not name.startswith(".")], suffixes)  # noqa: PTH208
        if not found:
            raise ValueError(f"{text}: the folder must hold a file with suffix {wanted}, got none{hint}")
        return found
    if path.exists():
        return [path]
    if text in samples:
        return [samples[text]]
    if glob.has_magic(text):
        # Unlike Path.glob, it takes absolute patterns and passes hidden files over.
        found = _matching([Path(name) for name in glob.glob(str(path), recursive=True)], suffixes)  # noqa: PTH207
        if not found:
            raise ValueError(f"{text}: the pattern must match a file with suffix {wanted}, got none{hint}")
        return found
    raise ValueError(
        f"{text}: there is no such file or folder; allowed are a file, a folder, a pattern such as *{suffixes[0]}{hint}"
        f"{_alike(path) or did_you_mean(text, samples, quote=False)}"
    )


def _alike(path: Path) -> str:
    """The end of a message that names a file of the same folder, if one is spelled alike."""
    try:
        names = [other.name for other in itertools.islice(path.parent.iterdir(), MOST_COMPARED)]
    except OSError:
        return ""
    close = nearest(path.name, names)
    return f"; did you mean {path.with_name(close)}?" if close else ""


def _matching(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    files = [path for path in paths if path.name.lower().endswith(tuple(suffixes)) and path.is_file()]
    # By name without regard to case, then by case: the same order on every system.
    return sorted(files, key=lambda path: (str(path).lower(), str(path)))
