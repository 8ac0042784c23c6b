"""Server-sent events: the state of the jobs of a page, whenever it changes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import StreamingResponse

from dop_lightning.cli.app.manager import Manager

PAUSE = 0.3
"""Seconds between two looks."""

ALIVE = 50
"""Looks without a change after which a comment is sent, which shows whether the page is still there."""


async def changes(
    manager: Manager, session: str, is_disconnected: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield an event with all jobs of a page, and another one per change, until the page or the server ends."""
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
    """Return the response of :func:`changes`."""
    return StreamingResponse(changes(manager, session, is_disconnected), media_type="text/event-stream")
