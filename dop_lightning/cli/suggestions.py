"""Suggestions for misspelled verbs. No heavy package is imported here."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from dop_lightning.foundation.nearest import nearest

_VERB_OF_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".bmp"), "recover"),
    **dict.fromkeys((".fits", ".fit", ".fts", ".gz", ".fz"), "recover"),
    **dict.fromkeys((".npy", ".npz", ".csv", ".mat", ".h5", ".hdf5", ".zarr"), "separate"),
    **dict.fromkeys((".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"), "separate"),
    **dict.fromkeys((".yaml", ".yml"), "fit"),
}
"""Verbs that files are usually passed to, by suffix."""

_REST = {"recover": "{} --out restored", "separate": "{} --out parts", "fit": "--config {}", "table": "{}"}


def suggestion(word: str, verbs: Iterable[str]) -> str:
    """Return the suggested command, if any: a verb of similar spelling, or the verb for a file.

    Args:
        word: the word in the position of the verb.
        verbs: all verbs.

    >>> suggestion("recovr", ["recover", "fit"])
    'recover'
    >>> suggestion("my photo.PNG", ["recover", "fit"])
    "dop recover 'my photo.PNG' --out restored"
    >>> suggestion("xyzzy", ["recover", "fit"])
    ''
    """
    verbs = list(verbs)
    if word in ("-c", "--config") or word.startswith("--config="):
        return f"dop fit {word}{'' if '=' in word else ' …'}"
    verb = _verb_for_file(word)
    if verb in verbs:
        return f"dop {verb} {_REST[verb].format(shlex.quote(word))}"
    close = nearest(word.lstrip("-"), [*verbs, "help", "version"]) or ""
    return {"help": "dop --help", "version": "dop --version"}.get(close, close)


def _verb_for_file(word: str) -> str:
    from dop_lightning.runs.folder import RunFolder
    from dop_lightning.runs.sweeps.record import SWEEP

    path = Path(word)
    try:
        if path.is_dir():
            return "table" if RunFolder(path).has_run or (path / SWEEP).is_file() else "recover"
    except (OSError, ValueError):  # not a path, for example too long
        return ""
    return _VERB_OF_SUFFIX.get(path.suffix.lower(), "")
