"""Server of the page: prints its address, and saves the state of the running job at the end."""

import asyncio
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from dop_lightning.cli.app.guard import Guard
from dop_lightning.cli.app.manager import Manager
from dop_lightning.cli.app.routes import Routes


def application(manager: Manager, token: str, limit: int, port: int | None = None) -> Guard:
    """Return the ASGI application.

    Args:
        manager: manager of the jobs, which processes its queue while the application runs, and is closed at the end.
        token: random part of the address.
        limit: maximum size of a file in bytes.
        port: port of the server; ``None`` accepts any port in the header ``Host``.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(manager.work())
        try:
            yield
        finally:
            manager.is_closing = True
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await asyncio.to_thread(manager.close)

    return Guard(Starlette(routes=Routes(manager, limit).all(), lifespan=lifespan), token, port)


class Server(uvicorn.Server):
    """Server that calls a function when it is ready, and ends the event streams of pages at a signal."""

    def __init__(self, config: uvicorn.Config, manager: Manager, when_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._manager = manager
        self._when_up = when_up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        if self.started:
            self._when_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down at SIGINT and SIGTERM."""
        if not self._manager.is_closing:
            print("\nStopping: saving the state of the running job", file=sys.stderr)
        self._manager.is_closing = True
        super().handle_exit(sig, frame)


def serve(bound: socket.socket, folder: Path, limit: int, *, opens_browser: bool, is_kept: bool) -> None:
    """Serve the page until a signal.

    Args:
        bound: socket that is bound to the loopback address.
        folder: folder of all jobs.
        limit: maximum size of a file in bytes.
        opens_browser: whether to open the page in a browser.
        is_kept: whether the folder is kept at the end.

    Raises:
        KeyboardInterrupt: at the end, after SIGINT or SIGTERM.
    """
    host, port = bound.getsockname()
    manager, token = Manager(folder), secrets.token_urlsafe(24)
    guard = application(manager, token, limit, port)
    manager.examiner.start()

    def when_up() -> None:
        print(f"dop app: http://{host}:{port}/{token}/", flush=True)
        where = (
            f"Files and results: {folder}"
            if is_kept
            else "Files and results are removed at the end (pass --folder to keep them)"
        )
        print(f"{where}. Ctrl-C stops.", file=sys.stderr, flush=True)
        if opens_browser:
            guard.ticket = secrets.token_urlsafe(24)
            address = f"http://{host}:{port}/open/{guard.ticket}"
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        http="h11",
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    Server(config, manager, when_up).run(sockets=[bound])
