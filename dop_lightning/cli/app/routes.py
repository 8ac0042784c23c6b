"""Addresses of the page, relative to its token.

Errors of files and settings are one line, ``{"error": …}``, with status 200, because browsers log all other statuses as
errors of the page. Requests that the page does not send get 404 or 413.
"""

import json
import re
import shutil
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from dop_lightning.cli.app.correction import LARGEST_LAYER
from dop_lightning.cli.app.events import event_stream
from dop_lightning.cli.app.job import file_name
from dop_lightning.cli.app.manager import Manager
from dop_lightning.cli.app.results import download_name, files_of
from dop_lightning.cli.app.uploads import TooLargeError, read_body, read_json, save_body

STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    **{
        name: (name, "text/css; charset=utf-8" if name.endswith(".css") else "text/javascript; charset=utf-8")
        for name in ("app.css", "app.js", "api.js", "settings.js", "viewer.js", "brush.js", "words.js")
    },
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Static files of the page by their address."""

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
"""Content security policy of reports: they contain their style and script, and cannot access the page."""

Handler = Callable[[Request], Awaitable[Response]]


class Routes:
    """Handlers of the requests of pages.

    Each address contains the random session of the page, which can only access its own jobs.

    Args:
        manager: manager of the jobs.
        limit: maximum size of a file in bytes.
    """

    def __init__(self, manager: Manager, limit: int) -> None:
        self.manager = manager
        self.limit = limit

    def all(self) -> list[Route]:
        """Return all routes."""
        of_page, of_job = "/api/{session:str}", "/api/{session:str}/jobs/{job:str}"
        get = [
            *((f"/{address}", self.static) for address in STATIC),
            (f"{of_page}/hello", self.hello),
            (f"{of_page}/events", self.events),
            (f"{of_page}/jobs", self.jobs),
            (f"{of_job}/files/{{what:str}}", self.file),
        ]
        post = [
            (f"{of_page}/files", self.upload),
            (f"{of_page}/earlier", self.adopt),
            (f"{of_job}/start", self.start),
            (f"{of_job}/stop", self.stop),
            (f"{of_job}/remove", self.remove),
            (f"{of_job}/correct", self.correct),
        ]
        return [Route(path, _errors_as_lines(handler), methods=["GET"]) for path, handler in get] + [
            Route(path, _errors_as_lines(handler), methods=["POST"]) for path, handler in post
        ]

    async def static(self, request: Request) -> Response:
        """Return a static file of the page."""
        name, kind = STATIC[request.url.path.rsplit("/", 1)[-1]]
        content = (files("dop_lightning.cli.app") / "static" / name).read_bytes()
        return Response(content, headers={"content-type": kind})

    async def hello(self, request: Request) -> Response:
        """Return the limits and the number of earlier jobs, which a page requests when it starts."""
        _session(request)
        return JSONResponse({"limit": self.limit, "layer": LARGEST_LAYER, "earlier": len(self.manager.earlier())})

    async def jobs(self, request: Request) -> Response:
        """Return the jobs of the page."""
        own = self.manager.of_session(_session(request))
        return JSONResponse([self.manager.shown(job) for job in own])

    async def events(self, request: Request) -> Response:
        """Stream the jobs of the page after each change."""
        return event_stream(self.manager, _session(request), request.is_disconnected)

    async def file(self, request: Request) -> Response:
        """Return a file of a job by its key."""
        job = self.manager.job(_session(request), request.path_params["job"])
        what = request.path_params["what"]
        path = files_of(job).get(what)
        if path is None and what == "preview":  # removed when the result was written
            return Response(status_code=204)
        if path is None:
            raise KeyError(what)
        headers = {"content-security-policy": REPORT_POLICY} if what == "report" else {}
        kind = "attachment" if "download" in request.query_params else "inline"
        return FileResponse(
            path, filename=download_name(job, what, path), content_disposition_type=kind, headers=headers
        )

    async def upload(self, request: Request) -> Response:
        """Receive a file: name and kind are in the query, the content is the body."""
        session, kind = _session(request), request.query_params.get("kind", "recover")
        if kind not in ("recover", "separate"):
            raise ValueError(f"kind must be recover or separate, got {kind!r}")
        name = file_name(request.query_params.get("name", "file"))
        folder = self.manager.new_folder(session)
        try:
            await save_body(request, folder / name, self.limit)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        job = await self.manager.add(folder, session, "recover" if kind == "recover" else "separate", name)
        return JSONResponse(self.manager.shown(job), 201)

    async def adopt(self, request: Request) -> Response:
        """Assign the jobs of an earlier start to the page."""
        self.manager.adopt(_session(request))
        return await self.jobs(request)

    async def start(self, request: Request) -> Response:
        """Queue a job."""
        job = self.manager.job(_session(request), request.path_params["job"])
        self.manager.start(job, (await read_json(request)).get("settings", {}))
        return JSONResponse(self.manager.shown(job))

    async def stop(self, request: Request) -> Response:
        """Stop a job after it saved its state."""
        job = self.manager.job(_session(request), request.path_params["job"])
        self.manager.stop(job)
        return JSONResponse(self.manager.shown(job))

    async def remove(self, request: Request) -> Response:
        """Remove a job with all its files."""
        await self.manager.remove(self.manager.job(_session(request), request.path_params["job"]))
        return JSONResponse({})

    async def correct(self, request: Request) -> Response:
        """Queue a job with a corrected map: its size and the settings are in the query, the layer is the body."""
        job, query = self.manager.job(_session(request), request.path_params["job"]), request.query_params
        data = await read_body(request, LARGEST_LAYER**2)
        height, width = (int(text) if (text := query.get(side, "")).isdigit() else 0 for side in ("height", "width"))
        try:
            settings = json.loads(query.get("settings", "{}"))
        except (ValueError, RecursionError) as error:
            raise ValueError("settings must be a JSON object") from error
        self.manager.correct(job, data, height, width, settings)
        return JSONResponse(self.manager.shown(job))


def _session(request: Request) -> str:
    """Return the session in the address of a request.

    Raises:
        ValueError: the session is invalid.
    """
    session = str(request.path_params["session"])
    if not re.fullmatch(r"[0-9a-f]{32}", session):
        raise ValueError("a session must have 32 hexadecimal digits")
    return session


def _errors_as_lines(handler: Handler) -> Handler:
    """Wrap a handler to return errors as one line."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except TooLargeError as error:
            return JSONResponse({"error": str(error)}, 413)
        except (ValueError, OSError) as error:
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return JSONResponse({"error": " ".join(text.split())})
        except KeyError:
            return JSONResponse({"error": "no such file or job"}, 404)

    return answer
