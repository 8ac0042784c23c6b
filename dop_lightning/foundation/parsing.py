"""Parse each file once while a run is prepared, however often its content is asked for."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT: ContextVar[dict[tuple[object, ...], tuple[bytes, Any]] | None] = ContextVar("parsed files", default=None)


@contextmanager
def parse_once() -> Iterator[None]:
    """Let :func:`parse_file` keep its results until the block ends; a nested block shares those of the outer one."""
    kept = _KEPT.get()
    token = _KEPT.set({} if kept is None else kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def parse_file(parse: Callable[..., T], path: Path, *arguments: object) -> T:
    """Return ``parse(path, *arguments)``, or within :func:`parse_once` its earlier result.

    A file is parsed again if its bytes have changed: they are hashed at each call, before and after parsing. The result
    is shared by all callers, which must not change it.

    Args:
        parse: reads a file.
        path: the file.
        arguments: of ``parse``, hashable.
    """
    kept = _KEPT.get()
    if kept is None or path.is_dir():  # the folder of a store is read each time
        return parse(path, *arguments)
    key = (parse, path.resolve(), *arguments)
    digest = _digest(path)
    if key in kept and kept[key][0] == digest:
        content: T = kept[key][1]
        return content
    content = parse(path, *arguments)
    if _digest(path) == digest:
        kept[key] = (digest, content)
    return content


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
