"""Names of problems. They are also names of folders: letters of any script, digits, dots, dashes and underscores."""

import re
import unicodedata
from collections.abc import Container, Sequence

LONGEST = 120
"""Maximum length in bytes. File systems allow 255."""

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
"""Other names in the folder of a run or sweep."""

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin|conout)(?=\.|$)", re.IGNORECASE | re.ASCII)
"""Names that Windows reserves for devices, whatever follows their first dot."""


def safe_name(text: str) -> str:
    """Convert ``text`` to a valid folder name on any system, which is always inside the folder of the run.

    The name has at most :data:`LONGEST` bytes of UTF-8, and is neither a device name nor one that a run uses itself.

    >>> safe_name("../my photo (1)é"), safe_name("照片"), safe_name("nul.old")
    ('my_photo_1_é', '照片', 'nul_.old')
    """
    plain = unicodedata.normalize("NFKC", text)  # one spelling of each letter, on every system
    kept = [c if c in "._-" or unicodedata.category(c)[0] in "LMN" else " " for c in plain]  # letters, marks, digits
    name = _trim(re.sub(r" +", "_", "".join(kept)).lstrip("._-"), LONGEST)
    if not name:
        return "problem"
    if name.lower() in _RESERVED:
        return f"{name}_"
    if device := _DEVICES.match(name):
        return f"{device[0]}_{_trim(name[device.end() :], LONGEST - len(device[0]) - 1)}"
    return text if name == text else name  # the same object, since thousands of names are kept


def _trim(name: str, longest: int) -> str:
    """Cut a name to at most ``longest`` bytes, and strip trailing punctuation."""
    return name.encode()[:longest].decode(errors="ignore").rstrip("._-")


def printable(text: str) -> str:
    r"""Return a file name as text that can be encoded and fits on one line.

    Control characters, and bytes that are not valid UTF-8 (lone surrogates in Python), are replaced by U+FFFD.

    >>> printable("a\nb"), printable("photo (1)")
    ('a�b', 'photo (1)')
    """
    shown = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    return text if shown == text else shown  # the same object, since thousands of names are kept


def unique_names(names: Sequence[str]) -> list[str]:
    """Append numbers to names that have occurred before, ignoring case.

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
    """Return ``name``, with a number appended if it is taken.

    Args:
        name: the requested name.
        taken: existing names, in lower case or case-folded. Case folding treats more letters as equal, as file systems
            do.

    >>> free_name("Photo", {"photo", "photo-2"})
    'Photo-3'
    """
    candidate, number = name, 1
    while candidate.lower() in taken or candidate.casefold() in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
