"""Names of problems: they name folders, and hold letters of any script, digits, dots, dashes and underscores alone."""

import re
import unicodedata
from collections.abc import Container, Sequence

LONGEST = 120
"""In bytes; file systems allow 255."""

_RESERVED = {
    "checkpoints",
    "config.yaml",
    "log.txt",
    "manifest.json",
    "metrics.csv",
    "point.json",
    "report.html",
    "results.csv",
    "sweep.json",
}
"""What else lies in the folder of a run, or of a sweep."""

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin|conout)(?=\.|$)", re.IGNORECASE | re.ASCII)
"""Names that Windows takes for devices, whatever follows their first dot."""


def safe_name(text: str) -> str:
    """``text`` as a folder's name on any system, inside the run's folder whatever it holds.

    At most :data:`LONGEST` bytes of UTF-8, no name of a device, and none that a run has a use for.

    >>> safe_name("../my photo (1)é"), safe_name("照片"), safe_name("nul.old")
    ('my_photo_1_é', '照片', 'nul_.old')
    """
    plain = unicodedata.normalize("NFKC", text)  # one spelling of each letter, on every system
    kept = [c if c in "._-" or unicodedata.category(c)[0] in "LMN" else " " for c in plain]  # letters, marks, numbers
    name = _trimmed(re.sub(r" +", "_", "".join(kept)).lstrip("._-"), LONGEST)
    if not name:
        return "problem"
    if name.lower() in _RESERVED:
        return f"{name}_"
    if device := _DEVICES.match(name):
        return f"{device[0]}_{_trimmed(name[device.end() :], LONGEST - len(device[0]) - 1)}"
    return name


def _trimmed(name: str, longest: int) -> str:
    """Cut to so many bytes, and without punctuation at its end."""
    return name.encode()[:longest].decode(errors="ignore").rstrip("._-")


def legible(text: str) -> str:
    r"""The name of a file as text that can be written and fits on a line.

    Bytes of a name that are no UTF-8, which Python gives as lone surrogates, and controls become U+FFFD.

    >>> legible("a\nb"), legible("photo (1)")
    ('a�b', 'photo (1)')
    """
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def unique_names(names: Sequence[str]) -> list[str]:
    """The same names, with a number behind those that occurred before; case does not tell names apart.

    >>> unique_names(["a", "b", "A", "a", "Straße", "STRASSE"])
    ['a', 'b', 'A-2', 'a-3', 'Straße', 'STRASSE-2']
    """
    unique: list[str] = []
    taken: set[str] = set()
    for name in names:
        unique.append(free_name(name, taken))
        taken.add(unique[-1].casefold())
    return unique


def free_name(name: str, taken: Container[str]) -> str:
    """``name``, with a number behind it where it is taken.

    Args:
        name: what is asked for.
        taken: what there is, in lower case, or case-folded, which takes more letters for the same, as file systems do.

    >>> free_name("Photo", {"photo", "photo-2"})
    'Photo-3'
    """
    candidate, number = name, 1
    while candidate.lower() in taken or candidate.casefold() in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
