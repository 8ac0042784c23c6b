"""Checksums of ``config.yaml``, and backup copies of ``config.yaml`` and ``manifest.json``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dop_lightning.foundation.checksums import checksum, read_json

COPIES = Path("checkpoints")
"""Folder of the copies, relative to the folder of the run."""

_MARK = b"# checksum "
"""Prefix of the first line of a config with a checksum."""

_noted: set[Path] = set()


def copy_of(path: Path) -> Path:
    """Return the path of the backup copy of a file in the folder of a run."""
    return path.parent / COPIES / path.name


def sealed(text: str) -> str:
    """Prepend the checksum of a config as a comment."""
    return f"{_MARK.decode()}{checksum(text.encode())}\n{text}"


def _config_body(content: bytes) -> bytes | None:
    """Return a config without its checksum; ``None`` if the checksum is missing or differs."""
    head, _, rest = content.partition(b"\n")
    return rest if head == _MARK + checksum(rest).encode() else None


def _body_of_copy(path: Path) -> bytes | None:
    try:
        return _config_body(copy_of(path).read_bytes())
    except OSError:
        return None


def read_config(path: Path) -> bytes:
    """Read the config of a run without its checksum.

    If the file is damaged, the backup copy is read instead, with a note on stderr. Configs of earlier versions have
    neither a checksum nor a copy and are not checked.

    Raises:
        ValueError: the file and its copy are damaged.
        OSError: the file cannot be read, and there is no copy.
    """
    try:
        content = path.read_bytes()
    except OSError:
        if (body := _body_of_copy(path)) is None:
            raise
        return _report_copy(path, "cannot be read", body)
    if (body := _config_body(content)) is not None:
        return body
    if (body := _body_of_copy(path)) is not None:
        return body if body == content else _report_copy(path, "damaged or edited, its checksum differs", body)
    if content.startswith(_MARK):
        raise ValueError("damaged: the checksum does not match the content")
    return content


def require_unchanged(path: Path) -> None:
    """Refuse an edited or damaged config of a run as the settings of a start.

    Raises:
        ValueError: the file is damaged or was edited.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if _config_body(content) is not None:
        return
    copy = _body_of_copy(path)
    if copy is not None and copy != content:
        raise ValueError(
            f"{path}: damaged or edited, the checksum differs; restore it from {copy_of(path)}, or copy it to another "
            "file name and pass that file to change settings"
        )
    if copy is None and content.startswith(_MARK):
        raise ValueError(f"{path}: damaged or edited, the checksum differs; if the content is correct, remove line 1")


def require_original(path: Path) -> None:
    """Refuse a folder in which a file is missing although its backup copy exists.

    Raises:
        ValueError: the file is missing and the copy exists.
    """
    if copy_of(path).is_file() and not path.exists():
        raise ValueError(f"{path}: missing; restore it from {copy_of(path)}")


def check_config(path: Path) -> str:
    """Return what is wrong with a config or a copy of it; empty if it is intact or has no checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    copy = _body_of_copy(path)
    is_old = not content.startswith(_MARK) and copy in (None, content)
    return "" if is_old or _config_body(content) is not None else "damaged or edited, its checksum differs"


def check_manifest(path: Path) -> str:
    """Return what is wrong with a manifest or a copy of it; empty if it is intact."""
    try:
        read_json(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except ValueError as error:
        return f"damaged ({error})"
    return ""


def read_manifest(path: Path) -> Any:
    """Read a manifest. If it is damaged, the backup copy is read instead, with a note on stderr.

    Raises:
        ValueError: the file and its copy are damaged.
        OSError: the file cannot be read.
    """
    return _read_or_copy(path, read_json)


def _read_or_copy(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except ValueError as error:
        try:
            content = read(copy_of(path))
        except (OSError, ValueError):
            raise error from None
        return _report_copy(path, f"damaged ({error})", content)


def _report_copy(path: Path, what: str, content: Any) -> Any:
    """Print once that the copy is read instead, and return its content."""
    if path not in _noted:
        _noted.add(path)
        print(f"{path}: {what}; reading its copy {copy_of(path)} instead", file=sys.stderr)
    return content
