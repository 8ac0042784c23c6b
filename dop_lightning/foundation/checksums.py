"""Checksums of bytes, files and JSON contents, to detect corrupted files. Does not import torch.

CRC-32 detects every flipped bit and every error burst of up to 32 bits, and is the fastest checksum in Python. It does
not detect forgeries.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
"""Key under which a JSON file stores its own checksum."""

_CHUNK = 2**22


class Checksum:
    """Checksum that is updated incrementally."""

    def __init__(self) -> None:
        self._crc = 0

    def add(self, content: Any) -> None:
        """Add bytes, or any object with a contiguous buffer."""
        self._crc = zlib.crc32(content, self._crc)

    def __str__(self) -> str:
        """Return the checksum as stored in files: ``crc32:`` and eight hexadecimal digits."""
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
        OSError: the file cannot be read.
    """
    whole = Checksum()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.add(chunk)
    return str(whole)


MISSING, DIFFERS = "missing", "damaged, its checksum differs"


def file_fault(path: Path, expected: str) -> str:
    """Return a description of what is wrong with a file, or an empty string if it has the expected checksum."""
    try:
        return "" if file_checksum(path) == expected else DIFFERS
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the content of a JSON file its checksum, which does not depend on the formatting of the file."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**rest, CHECKSUM: _json_checksum(json.loads(json.dumps(rest)))}


def without_checksum(content: Any) -> Any:
    """Check the content of a JSON file, and return it without its checksum. Content without a checksum is not checked.

    Raises:
        ValueError: the checksum does not match the content.
    """
    if not isinstance(content, dict) or CHECKSUM not in content:
        return content
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if content[CHECKSUM] != _json_checksum(rest):
        raise ValueError("damaged: its checksum does not match its content")
    return rest


def read_json(path: Path) -> Any:
    """Read a JSON file, and verify its checksum, if any.

    Raises:
        ValueError: the file is damaged.
        OSError: the file cannot be read.
    """
    return without_checksum(json.loads(path.read_text(encoding="utf-8")))


def _json_checksum(content: Any) -> str:
    return checksum(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
