"""Write files atomically: readers never see a partial file, even if the writer was killed."""

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
"""Maximum number of files in a group that are written to disk concurrently."""

_GROUP: ContextVar["_Group | None"] = ContextVar("group", default=None)

_RECORDED: ContextVar[dict[Path, str] | None] = ContextVar("recorded", default=None)


def write_atomically(
    path: str | Path, write: Callable[[BinaryIO], object], durable: bool = True, streamed: bool = False
) -> None:
    """Write a temporary file next to ``path`` with ``write``, then rename it to ``path``.

    The old content is kept until the rename, and also if writing fails. Missing folders are created.

    Args:
        path: the file to write.
        write: called with a file opened for binary writing, for example ``lambda file: torch.save(state, file)``.
        durable: whether to wait until the content is on disk. Pass ``False`` for files that need not survive a power
            failure, such as those replaced every second. Within :func:`written_together`, waiting and renaming happen
            at the end of the block.
        streamed: whether ``write`` writes directly to the temporary file. By default, the content is first collected
            in memory, because most libraries replace disk errors by their own.

    Raises:
        OSError: the folder cannot be created or written, or ``path`` is a folder.
    """
    path = Path(path)
    content = io.BytesIO()
    if not streamed:
        write(content)
    make_folder(path.parent)
    # In the same folder, since files cannot be renamed across file systems; with a random name, since several
    # processes may write the same file; without `tempfile`, whose files are readable by their owner only.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    if streamed:
        _write_streamed(path, temporary, write, durable)
        return
    if durable and (group := _GROUP.get()) is not None:
        group.add(path, temporary, content)
    else:
        try:
            _write_temporary(path, temporary, content, durable)
            with naming(path):
                temporary.replace(path)
        except BaseException:  # clean up after KeyboardInterrupt, too
            temporary.unlink(missing_ok=True)
            raise
    _record_checksum(path, content.getbuffer())


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
                    _flush(temporary)
                temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if (files := _RECORDED.get()) is not None:
        files[path] = str(found)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


class _Summed:
    """File that updates a checksum with all bytes written to it."""

    def __init__(self, file: BinaryIO, found: Checksum) -> None:
        self._file, self._found = file, found

    def write(self, content: bytes) -> int:
        self._found.add(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, except a folder that this process has locked.

    A locked folder that was moved is not created again, since the process would then continue in a second folder.

    Raises:
        OSError: the folder cannot be created, or the locked folder was moved, removed or replaced.
    """
    path = folder.absolute()
    held = held_above(path)
    if held is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    try:  # one at a time, so that the locked folder itself is never created, whenever it is moved
        for each in reversed([path, *path.parents][: len(path.parts) - len(held.parts)]):
            each.mkdir(exist_ok=True)
    except FileNotFoundError:
        held_above(path)
        raise


def remove_temporary(folder: Path) -> None:
    """Remove temporary files and folders that killed writers left in a folder, at any depth.

    No process may be writing to the folder. Entries that cannot be removed are skipped.
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
    """Collect the checksums of all files written in the ``with`` block, by path. Blocks must not be nested."""
    files: dict[Path, str] = {}
    token = _RECORDED.set(files)
    try:
        yield files
    finally:
        _RECORDED.reset(token)


def _record_checksum(path: Path, content: memoryview | bytes) -> None:
    if (files := _RECORDED.get()) is not None:
        files[path] = checksum(content)


def record_file(path: Path) -> None:
    """Add the checksum of a file written by other means to :func:`recorded_checksums`, if it is active.

    Raises:
        OSError: the file cannot be read.
    """
    if (files := _RECORDED.get()) is not None:
        files[path] = file_checksum(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, and rename it to ``path`` at the end of the ``with`` block.

    Use it for content that does not fit in memory, and :func:`write_atomically` otherwise. The content is flushed to
    disk before the rename. If the block fails, the temporary file or folder is removed. If ``path`` is a folder, it is
    removed just before it is replaced.

    Args:
        path: the file or folder to write, in an existing folder.

    Raises:
        OSError: the folder cannot be written, or a file would replace a folder.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with naming(path):
            yield temporary
            is_folder = temporary.is_dir()
            _sync_files([file for file in temporary.rglob("*") if file.is_file()] if is_folder else [temporary])
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


def _write_temporary(path: Path, temporary: Path, content: io.BytesIO, durable: bool) -> None:
    with naming(path), temporary.open("xb") as file:
        file.write(content.getbuffer())
        file.flush()
        if durable:  # otherwise the rename may reach the disk before the content
            os.fsync(file.fileno())


@functools.cache
def _writer_pool() -> ThreadPoolExecutor:
    """Return the threads that write the files of groups."""
    return ThreadPoolExecutor(WAITING, "write")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_writer_pool.cache_clear)


class _Group:
    """Files written concurrently, one per thread, since writing mostly waits for the disk."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path, Future[None]]] = []

    def add(self, path: Path, temporary: Path, content: io.BytesIO) -> None:
        self._files.append((path, temporary, _writer_pool().submit(_write_temporary, path, temporary, content, True)))

    def add_written(self, path: Path, temporary: Path) -> None:
        """Add a temporary file that is already written, to flush it to disk."""
        self._files.append((path, temporary, _writer_pool().submit(_flush, temporary)))

    def replace(self) -> None:
        """Wait for all files, then rename them in the order in which they were added."""
        for _, _, filled in self._files:
            filled.result()
        for path, temporary, _ in self._files:
            try:
                temporary.replace(path)
            except OSError as error:  # it names the temporary file
                raise OSError(error.errno, error.strerror or str(error), str(path)) from error

    def discard(self) -> None:
        """Remove the remaining temporary files."""
        wait([filled for _, _, filled in self._files if not filled.cancel()])
        for _, temporary, _ in self._files:
            temporary.unlink(missing_ok=True)


@contextmanager
def written_together() -> Iterator[None]:
    """Write the durable files of a ``with`` block concurrently, in about the time of a single file.

    The files are renamed at the end of the block, in the order in which they were written, once the contents of all are
    on disk. If the block fails or a file cannot be written, all old contents are kept. Files written inside the block
    cannot be read before it ends.

    Raises:
        OSError: as :func:`write_atomically`, at the end of the block.
    """
    if _GROUP.get() is not None:  # nested blocks join the outer group
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
    """Write many small files as :func:`write_atomically` does, but wait for the disk only once.

    On Linux, this takes one ``syncfs`` per file system instead of one ``fsync`` per file. The files do not join a group
    of :func:`written_together`: they are in place when the function returns.

    Args:
        files: contents by path.

    Raises:
        OSError: a folder cannot be created or a file cannot be written. No file is replaced then.
    """
    temporary = {path: path.parent / f".{secrets.token_hex(8)}.tmp" for path in files}
    try:
        for folder in {path.parent for path in files}:
            make_folder(folder)
        for path, content in files.items():
            with naming(path):
                temporary[path].write_bytes(content)
        _sync_files(list(temporary.values()))
        for path, written in temporary.items():
            with naming(path):
                written.replace(path)
            _record_checksum(path, files[path])
    except BaseException:
        for written in temporary.values():
            written.unlink(missing_ok=True)
        raise


def _sync_files(files: Sequence[Path]) -> None:
    """Wait until the contents of the files are on disk."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None) if sys.platform == "linux" else None
    one_per_device = {path.stat().st_dev: path for path in files} if syncfs else {}
    for path in one_per_device.values() if syncfs else files:
        with path.open("rb+") as file:
            if syncfs is None or syncfs(file.fileno()) != 0:
                os.fsync(file.fileno())


def append_text(path: str | Path, text: str) -> None:
    """Append ``text`` as UTF-8. If the disk is full, nothing is appended.

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
    """Name ``path`` instead of a temporary file in write errors such as "No space left on device"."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).endswith(".tmp"):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def atomic_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, without changing its line endings.

    Raises:
        OSError: as :func:`write_atomically`.
    """
    atomic_bytes(path, text.encode("utf-8"))


def atomic_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content``.

    Raises:
        OSError: as :func:`write_atomically`.
    """
    write_atomically(path, lambda file: file.write(content))


def atomic_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON in UTF-8.

    Raises:
        ValueError: ``value`` contains a non-finite number, which JSON does not support; use ``None`` if unknown.
        TypeError: ``value`` contains an object that JSON cannot represent.
        OSError: as :func:`write_atomically`.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: numbers must be finite, use None for unknown values: {error}") from error
    atomic_text(path, text + "\n")


def checked_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as :func:`atomic_json` does, and add its checksum under the key ``checksum``.

    Raises:
        ValueError: as :func:`atomic_json`.
        OSError: as :func:`write_atomically`.
    """
    atomic_json(path, with_checksum(value))
