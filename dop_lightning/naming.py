"""Names of problems: they name folders, and hold letters of any script, digits, dots, dashes and underscores alone."""

import re
import unicodedata
from collections.abc import Container, Sequence

LONGEST = 120
"""In bytes; file systems allow 255."""

_RESERVED = {"checkpoints", "config.yaml", "log.txt", "manifest.json", "metrics.csv", "point.json", "results.csv"}
"""What else lies in the folder of a run."""


def safe_name(text: str) -> str:
    """``text`` as a folder's name on any system, inside the run's folder whatever it holds.

    >>> safe_name("../my photo (1)é"), safe_name("照片")
    ('my_photo_1_é', '照片')
    """
    plain = unicodedata.normalize("NFKC", text)  # one spelling of each letter, on every system
    kept = [c if c in "._-" or unicodedata.category(c)[0] in "LMN" else " " for c in plain]  # letters, marks, numbers
    name = re.sub(r" +", "_", "".join(kept)).strip("._-")
    name = name.encode()[:LONGEST].decode(errors="ignore").rstrip("._-")
    if not name:
        return "problem"
    return f"{name}_" if name.lower() in _RESERVED else name


def unique_names(names: Sequence[str]) -> list[str]:
    """The same names, with a number behind those that occurred before; case does not tell names apart.

    >>> unique_names(["a", "b", "A", "a"])
    ['a', 'b', 'A-2', 'a-3']
    """
    unique: list[str] = []
    taken: set[str] = set()
    for name in names:
        unique.append(free_name(name, taken))
        taken.add(unique[-1].lower())
    return unique


def free_name(name: str, taken: Container[str]) -> str:
    """``name``, with a number behind it where it is taken.

    Args:
        name: what is asked for.
        taken: what there is, in lower case.

    >>> free_name("Photo", {"photo", "photo-2"})
    'Photo-3'
    """
    candidate, number = name, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
