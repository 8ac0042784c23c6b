"""Files that are there whole or not at all: whoever reads one never sees half of it, whatever stopped the writer."""

import ctypes
import functools
import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, cast

from dop_lightning.foundation.checksums import Checksum, checksum, file_checksum, with_checksum
from dop_lightning.foundation.folder_lock import held_above

WAITING = 8
"""Maximum number of files of a group that wait for the disk at the same time."""

_GROUP: ContextVar["_Group | None"] = ContextVar("group", default=None)

_RECORDED: ContextVar[dict[Path, str] | None] = ContextVar("recorded", default=None)


def write_atomically(
    path: str | Path, write: Callable[[BinaryIO], object], durable: bool = True, streamed: bool = False
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in the place of ``path`` in one step.

    Until then the old content stands, and it stays where writing fails. Missing folders are made.

    Args:
        path: the file to write.
        write: gets a file that is open for binary writing; ``lambda file: torch.save(state, file)``.
        durable: whether to wait until the content is on the disk. A file that is replaced every second need not
            survive a power cut. Inside of :func:`written_together`, the wait and the replacement come at its end.
        streamed: whether the content goes to the temporary file as it comes. Else it is collected in memory first,
            since most libraries hide errors of the disk behind errors of their own.

    Raises:
        OSError: the folder cannot be made or written, or ``path`` is a folder.
    """
    path = Path(path)
    content = io.BytesIO()
    if not streamed:
        write(content)
    make_folder(path.parent)
    # In the same folder, since a file cannot be renamed across file systems; with a random name, since several
    # processes may write the same file; and not by `tempfile`, whose files only their owner may read.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    if streamed:
        _write_streamed(path, temporary, write, durable)
        return
    if durable and (group := _GROUP.get()) is not None:
        group.add(path, temporary, content)
    else:
        try:
            _fill(path, temporary, content, durable)
            with naming(path):
                temporary.replace(path)
        except BaseException:  # an interrupt, too, leaves nothing behind
            temporary.unlink(missing_ok=True)
            raise
    _record(path, content.getbuffer())


def _write_streamed(path: Path, temporary: Path, write: Callable[[BinaryIO], object], durable: bool) -> None:
    found = Checksum()
    try:
        with naming(path), temporary.open("xb") as file:
            write(cast("BinaryIO", _Summed(file, found)))
        if durable and (group := _GROUP.get()) is not None:
            group.add_written(path, temporary)
        else:
            with naming(path):
                if durable:
                    _to_disk(temporary)
                temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if (files := _RECORDED.get()) is not None:
        files[path] = str(found)


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


class _Summed:
    """A file that adds to a checksum what is written."""

    def __init__(self, file: BinaryIO, found: Checksum) -> None:
        self._file, self._found = file, found

    def write(self, content: bytes) -> int:
        self._found.add(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, but not anew a folder that this process holds and that was moved.

    Raises:
        OSError: it cannot be made, or such a folder was moved, removed or replaced.
    """
    path = folder.absolute()
    held = held_above(path)
    if held is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    try:  # one after the other: the held one is not among them, whenever it is moved
        for each in reversed([path, *path.parents][: len(path.parts) - len(held.parts)]):
            each.mkdir(exist_ok=True)
    except FileNotFoundError:
        held_above(path)
        raise


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files and folders that writers left in a folder, at any depth, when they were killed.

    No process may be writing there. What cannot be removed stays.
    """
    for parent, folders, files in os.walk(folder):
        for name in (each for each in files if _is_temporary(each)):
            with suppress(OSError):
                Path(parent, name).unlink()
        for name in (each for each in folders if _is_temporary(each)):
            shutil.rmtree(Path(parent, name), ignore_errors=True)
        folders[:] = [name for name in folders if not _is_temporary(name)]


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


@contextmanager
def recorded_checksums() -> Iterator[dict[Path, str]]:
    """Collect the checksum of each file that is written in a ``with`` block, by path. Blocks must not be nested."""
    files: dict[Path, str] = {}
    token = _RECORDED.set(files)
    try:
        yield files
    finally:
        _RECORDED.reset(token)


def _record(path: Path, content: memoryview | bytes) -> None:
    if (files := _RECORDED.get()) is not None:
        files[path] = checksum(content)


def record_file(path: Path) -> None:
    """Let :func:`recorded_checksums` have a file that was written by other means, if it is collecting.

    Raises:
        OSError: the file cannot be read.
    """
    if (files := _RECORDED.get()) is not None:
        files[path] = file_checksum(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file or folder beside ``path``, which is put in the place of ``path`` at the end.

    For content that is too large for memory, see :func:`write_atomically` for others. It is on the disk at the end. If
    the block fails, it is removed. A folder that is replaced is removed just before.

    Args:
        path: the file or folder to write, in an existing folder.

    Raises:
        OSError: the folder cannot be written, or a file is to replace a folder.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with naming(path):
            yield temporary
            is_folder = temporary.is_dir()
            _sync([file for file in temporary.rglob("*") if file.is_file()] if is_folder else [temporary])
            if is_folder and path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        raise
    if path.is_file():
        record_file(path)


def _fill(path: Path, temporary: Path, content: io.BytesIO, durable: bool) -> None:
    with naming(path), temporary.open("xb") as file:
        file.write(content.getbuffer())
        file.flush()
        if durable:  # else the new name may reach the disk before the content does
            os.fsync(file.fileno())


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads that write the files of groups."""
    return ThreadPoolExecutor(WAITING, "write")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


class _Group:
    """Files that are written together, each by a thread, since each of them mostly waits for the disk."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path, Future[None]]] = []

    def add(self, path: Path, temporary: Path, content: io.BytesIO) -> None:
        self._files.append((path, temporary, _pool().submit(_fill, path, temporary, content, True)))

    def add_written(self, path: Path, temporary: Path) -> None:
        """Add a file whose content need only reach the disk."""
        self._files.append((path, temporary, _pool().submit(_to_disk, temporary)))

    def replace(self) -> None:
        """Wait for all files, then put them in their places in the order in which they were added."""
        for _, _, filled in self._files:
            filled.result()
        for path, temporary, _ in self._files:
            try:
                temporary.replace(path)
            except OSError as error:  # named after the temporary file
                raise OSError(error.errno, error.strerror or str(error), str(path)) from error

    def discard(self) -> None:
        """Remove the temporary files that are left."""
        wait([filled for _, _, filled in self._files if not filled.cancel()])
        for _, temporary, _ in self._files:
            temporary.unlink(missing_ok=True)


@contextmanager
def written_together() -> Iterator[None]:
    """Write the durable files of a ``with`` block together, which takes about as long as to write one of them.

    They get their places at the end of the block, in the order in which they were written, once the contents of all are
    on the disk. If the block fails, or one of the files cannot be written, none of them replaces its old content. Files
    that are written inside of the block cannot be read inside of it.

    Raises:
        OSError: as :func:`write_atomically`, at the end of the block.
    """
    if _GROUP.get() is not None:  # a part of the group around it
        yield
        return
    group = _Group()
    token = _GROUP.set(group)
    try:
        yield
        group.replace()
    except BaseException:
        group.discard()
        raise
    finally:
        _GROUP.reset(token)


def write_batch(files: Mapping[Path, bytes]) -> None:
    """Write many small files, each as :func:`write_atomically`, and wait for the disk once for all of them.

    On Linux that is one ``syncfs`` per file system instead of one ``fsync`` per file. It is no part of a group of
    :func:`written_together`: the files have their names when it returns.

    Args:
        files: contents by path.

    Raises:
        OSError: a folder cannot be made or a file cannot be written. None of the files is replaced then.
    """
    temporary = {path: path.parent / f".{secrets.token_hex(8)}.tmp" for path in files}
    try:
        for folder in {path.parent for path in files}:
            make_folder(folder)
        for path, content in files.items():
            with naming(path):
                temporary[path].write_bytes(content)
        _sync(list(temporary.values()))
        for path, written in temporary.items():
            with naming(path):
                written.replace(path)
            _record(path, files[path])
    except BaseException:
        for written in temporary.values():
            written.unlink(missing_ok=True)
        raise


def _sync(files: Sequence[Path]) -> None:
    """Wait until the contents of files are on the disk."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None) if sys.platform == "linux" else None
    one_per_device = {path.stat().st_dev: path for path in files} if syncfs else {}
    for path in one_per_device.values() if syncfs else files:
        with path.open("rb+") as file:
            if syncfs is None or syncfs(file.fileno()) != 0:
                os.fsync(file.fileno())


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
    """Give errors of writing, such as «No space left on device», the name of the file in place of a temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).endswith(".tmp"):
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


def checked_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as :func:`atomic_json` does, with its checksum under the key ``checksum``.

    Raises:
        ValueError: as :func:`atomic_json`.
        OSError: as :func:`write_atomically`.
    """
    atomic_json(path, with_checksum(value))
