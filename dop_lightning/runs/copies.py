"""Checksums of ``config.yaml``, and copies of it and of ``manifest.json`` that replace damaged ones."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dop_lightning.foundation.checksums import checksum, read_json

COPIES = Path("checkpoints")
"""The folder of the copies, inside of that of the run."""

_MARK = b"# checksum "
"""How the first line of a config with a checksum begins."""

_noted: set[Path] = set()


def copy_of(path: Path) -> Path:
    """Return the path of the copy of a file in the folder of a run."""
    return path.parent / COPIES / path.name


def sealed(text: str) -> str:
    """Return the text of a config with a comment before it, its checksum."""
    return f"{_MARK.decode()}{checksum(text.encode())}\n{text}"


def _body(content: bytes) -> bytes | None:
    """What follows the checksum of a config; ``None`` if it has none, or that of other content."""
    head, _, rest = content.partition(b"\n")
    return rest if head == _MARK + checksum(rest).encode() else None


def _body_of_copy(path: Path) -> bytes | None:
    try:
        return _body(copy_of(path).read_bytes())
    except OSError:
        return None


def read_config(path: Path) -> bytes:
    """Read the config of a run without its checksum, or its copy if it is damaged. That is noted on stderr.

    A config of an earlier version has no checksum and no copy. It is not checked.

    Raises:
        ValueError: it is damaged, and so is its copy.
        OSError: it cannot be read, and there is no copy.
    """
    try:
        content = path.read_bytes()
    except OSError:
        if (body := _body_of_copy(path)) is None:
            raise
        return _noting(path, "cannot be read", body)
    if (body := _body(content)) is not None:
        return body
    if (body := _body_of_copy(path)) is not None:
        return body if body == content else _noting(path, "damaged or edited, its checksum differs", body)
    if content.startswith(_MARK):
        raise ValueError("damaged: its checksum is that of other content")
    return content


def require_unchanged(path: Path) -> None:
    """Refuse the config of a run as settings of a start if it is not as the run has written it.

    Raises:
        ValueError: it is damaged or edited.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if _body(content) is not None:
        return
    copy = _body_of_copy(path)
    if copy is not None and copy != content:
        raise ValueError(
            f"{path}: damaged or edited, its checksum differs; restore it from {copy_of(path)}; to change "
            "settings, copy it to a file of another name, and edit and pass that one"
        )
    if copy is None and content.startswith(_MARK):
        raise ValueError(f"{path}: damaged or edited, its checksum differs; remove its first line if it is right")


def require_original(path: Path) -> None:
    """Refuse a folder that lacks a file of which it has a copy.

    Raises:
        ValueError: it does.
    """
    if copy_of(path).is_file() and not path.exists():
        raise ValueError(f"{path}: missing; restore it from {copy_of(path)}")


def check_config(path: Path) -> str:
    """Return what is wrong with a config or its copy, in words; empty if nothing is, or if it has no checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    copy = _body_of_copy(path)
    is_old = not content.startswith(_MARK) and copy in (None, content)
    return "" if is_old or _body(content) is not None else "damaged or edited, its checksum differs"


def check_manifest(path: Path) -> str:
    """Return what is wrong with a manifest or its copy, in words; empty if nothing is."""
    try:
        read_json(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except ValueError as error:
        return f"damaged ({error})"
    return ""


def read_manifest(path: Path) -> Any:
    """Read the content of a manifest, or of its copy if it is damaged. That is noted on stderr.

    Raises:
        ValueError: it is damaged, and so is its copy.
        OSError: it cannot be read.
    """
    return _or_copy(path, read_json)


def _or_copy(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except ValueError as error:
        try:
            content = read(copy_of(path))
        except (OSError, ValueError):
            raise error from None
        return _noting(path, f"damaged ({error})", content)


def _noting(path: Path, what: str, content: Any) -> Any:
    """Note once that a copy is read, and return its content."""
    if path not in _noted:
        _noted.add(path)
        print(f"{path}: {what}: its copy {copy_of(path)} is read", file=sys.stderr)
    return content
