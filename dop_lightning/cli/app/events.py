"""Server-sent events: the state of the jobs of a page after each change."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import StreamingResponse

from dop_lightning.cli.app.manager import Manager

PAUSE = 0.3
"""Seconds between two checks for changes."""

ALIVE = 50
"""Number of checks without a change after which a comment is sent, to detect closed pages."""


async def changes(
    manager: Manager, session: str, is_disconnected: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield an event with all jobs of a page, and another one after each change, until the page or server closes."""
    last, unchanged = "", 0
    while not manager.is_closing and not await is_disconnected():
        now = json.dumps([manager.shown(job) for job in manager.of_session(session)])
        if now != last:
            last, unchanged = now, 0
            yield f"data: {now}\n\n".encode()
        else:
            unchanged += 1
            if unchanged % ALIVE == 0:
                yield b": alive\n\n"
        await asyncio.sleep(PAUSE)


def event_stream(manager: Manager, session: str, is_disconnected: Callable[[], Awaitable[bool]]) -> StreamingResponse:
    """Return the response that streams :func:`changes`."""
    return StreamingResponse(changes(manager, session, is_disconnected), media_type="text/event-stream")
