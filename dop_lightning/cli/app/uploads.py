"""Read bodies of requests up to a maximum size."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request

from dop_lightning.foundation.units import format_bytes

SMALL = 2**16
"""Maximum size of settings in bytes."""


class TooLargeError(ValueError):
    """A request body exceeds the maximum size."""


async def limited(request: Request, limit: int, what: str) -> AsyncIterator[bytes]:
    """Yield the body of a request.

    Raises:
        TooLargeError: the body has more than ``limit`` bytes, or its header states that.
    """
    error = TooLargeError(f"{what}: the file must have at most {format_bytes(limit)}; raise dop app's --max-upload")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > limit:
        raise error
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise error
        yield chunk


async def save_body(request: Request, path: Path, limit: int) -> None:
    """Write the body of a request to a file.

    Raises:
        TooLargeError: the body has more than ``limit`` bytes.
        OSError: the file cannot be written.
    """
    with path.open("xb") as file:
        async for chunk in limited(request, limit, path.name):
            file.write(chunk)


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        TooLargeError: the body has more than ``limit`` bytes.
    """
    return b"".join([chunk async for chunk in limited(request, limit, "the request")])


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        ValueError: the body is not a JSON object.
    """
    try:
        found = json.loads(await read_body(request, SMALL) or b"{}")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("the request must contain a JSON object") from error
    if not isinstance(found, dict):
        raise ValueError(f"the request must contain a JSON object, got {type(found).__name__}")
    return found
