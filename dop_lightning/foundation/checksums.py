"""Checksums of bytes, files and the contents of JSON files, to detect damage. Imports no torch.

CRC-32 detects every flipped bit and every burst of up to 32 bits, and is the fastest of Python's checksums. It does not
detect forgeries.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
"""The key of a file's own checksum."""

_CHUNK = 2**22


class Checksum:
    """A checksum that grows with what is added to it."""

    def __init__(self) -> None:
        self._crc = 0

    def add(self, content: Any) -> None:
        """Add bytes, or any object with a contiguous buffer."""
        self._crc = zlib.crc32(content, self._crc)

    def __str__(self) -> str:
        """Return the checksum as files hold it, ``crc32:`` and eight hexadecimal digits."""
        return f"crc32:{self._crc:08x}"


def checksum(content: Any) -> str:
    """Return the checksum of bytes.

    >>> checksum(b"123456789")
    'crc32:cbf43926'
    """
    whole = Checksum()
    whole.add(content)
    return str(whole)


def file_checksum(path: Path) -> str:
    """Return the checksum of the contents of a file.

    Raises:
        OSError: it cannot be read.
    """
    whole = Checksum()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.add(chunk)
    return str(whole)


MISSING, DIFFERS = "missing", "damaged, its checksum differs"


def file_fault(path: Path, expected: str) -> str:
    """Return what is wrong with a file, in words; empty if it has the expected checksum."""
    try:
        return "" if file_checksum(path) == expected else DIFFERS
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with its own checksum, which does not depend on how the file is laid out."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**rest, CHECKSUM: _json_checksum(json.loads(json.dumps(rest)))}


def without_checksum(content: Any) -> Any:
    """Return the content of a JSON file without its checksum. Content that has none is not checked.

    Raises:
        ValueError: the checksum is that of other content.
    """
    if not isinstance(content, dict) or CHECKSUM not in content:
        return content
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if content[CHECKSUM] != _json_checksum(rest):
        raise ValueError("damaged: its checksum is that of other content")
    return rest


def read_json(path: Path) -> Any:
    """Read a JSON file, and check its checksum if it has one.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    return without_checksum(json.loads(path.read_text(encoding="utf-8")))


def _json_checksum(content: Any) -> str:
    return checksum(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
