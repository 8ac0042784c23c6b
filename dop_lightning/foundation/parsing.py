"""Parse each file only once during the set-up of a run, even if its content is needed several times."""

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
    """Cache the results of :func:`parse_file` until the end of the block. Nested blocks share the cache."""
    kept = _KEPT.get()
    token = _KEPT.set({} if kept is None else kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def parse_file(parse: Callable[..., T], path: Path, *arguments: object) -> T:
    """Return ``parse(path, *arguments)``, or the cached result within :func:`parse_once`.

    A file is parsed again if its bytes have changed: they are hashed at each call, before and after parsing. The result
    is shared by all callers and must not be modified.

    Args:
        parse: function that reads a file.
        path: the file.
        arguments: further arguments of ``parse``, hashable.
    """
    kept = _KEPT.get()
    if kept is None or path.is_dir():  # stores that are folders are not cached
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
