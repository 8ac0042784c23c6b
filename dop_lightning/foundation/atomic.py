"""Files that are there whole or not at all: whoever reads one never sees half of it, whatever stopped the writer."""

import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object], durable: bool = True) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in the place of ``path`` in one step.

    Until then the old content stands, and it stays where writing fails. Missing folders are made.

    Args:
        path: the file to write.
        write: gets a file in memory, open for binary writing; ``lambda file: torch.save(state, file)``.
        durable: whether to wait until the content is on the disk. A file that is replaced every second need not
            survive a power cut.

    Raises:
        OSError: the folder cannot be made or written, or ``path`` is a folder.
    """
    path = Path(path)
    # In memory first: libraries hide what the disk has to say behind errors of their own.
    content = io.BytesIO()
    write(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a file cannot be renamed across file systems; with a random name, since several
    # processes may write the same file; and not by `tempfile`, whose files only their owner may read.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with naming(path), temporary.open("xb") as file:
            file.write(content.getbuffer())
            file.flush()
            if durable:  # else the new name may reach the disk before the content does
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # an interrupt, too, leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise


def append_text(path: str | Path, text: str) -> None:
    """Append ``text`` as UTF-8; where there is no room for all of it, none of it is appended.

    Raises:
        OSError: the file cannot be written.
    """
    with naming(path), Path(path).open("ab") as file:
        before = file.tell()
        try:
            file.write(text.encode("utf-8"))
            file.flush()
        except OSError:
            os.truncate(file.fileno(), before)
            raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Give errors of writing, such as «No space left on device», the name of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def atomic_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, its line ends as they are.

    Raises:
        OSError: as :func:`write_atomically`.
    """
    content = text.encode("utf-8")
    write_atomically(path, lambda file: file.write(content))


def atomic_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON for people and programs: indented, UTF-8.

    Raises:
        ValueError: ``value`` holds a number that is not finite. JSON has none: what is not known is ``None``.
        TypeError: ``value`` holds something that JSON has no form for.
        OSError: as :func:`write_atomically`.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: values must be finite numbers or None, got another: {error}") from error
    atomic_text(path, text + "\n")
