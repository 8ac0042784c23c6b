"""Reject requests of other machines, of other pages, or without the token, before any address is handled."""

import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost")
"""Names of this machine in the header ``Host``. Others may be DNS rebinding: a remote page whose name resolves here."""

READING = ("GET", "HEAD")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of all responses except reports."""

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""Headers of all responses."""


class Guard:
    """Forwards requests for ``/TOKEN/…`` that come from a page of this server, or from its address in a browser.

    The token is compared in constant time, and removed from the path.

    Args:
        app: application that handles the forwarded requests.
        token: random part of the address.
        port: port of the server; ``None`` accepts any port.

    Attributes:
        ticket: enables ``/open/TICKET`` once. The browser is started with this address instead of the token, because
            all users of the machine can see the arguments of a process.
    """

    def __init__(self, app: ASGIApp, token: str, port: int | None = None) -> None:
        self.app = app
        self.ticket = ""
        self._token = token.encode()
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        status, why = self._rejection(scope["method"], Headers(scope=scope))
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if not why and self.ticket and first == "open" and hmac.compare_digest(rest.encode(), self.ticket.encode()):
            self.ticket = ""
            await RedirectResponse(f"/{self._token.decode()}/", 303)(scope, receive, send_guarded)
            return
        if not why and not hmac.compare_digest(first.encode(), self._token):
            status, why = 403, "the token is wrong or missing: open the address that dop app printed"
        if why:
            await PlainTextResponse(f"{why}\n", status)(scope, receive, send_guarded)
            return
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(), "has_token": True}
        await self.app(inner, receive, send_guarded)

    def _rejection(self, method: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Return the status and the reason of a rejection; the reason is empty if the request is allowed."""
        host = headers.get("host", "")
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        if name.lower() not in LOOPBACK_NAMES or (self._port is not None and port != str(self._port)):
            return 400, "the header Host must name this machine: open the address that dop app printed"
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if method in READING:
            if site not in (None, "same-origin", "none") and mode != "navigate":
                return 403, "pages of another origin cannot read from dop app"
            return 0, ""
        if site not in (None, "same-origin") or headers.get("origin") != f"http://{host}":
            return 403, "only the page of dop app can make changes: the header Origin is that of another page"
        return 0, ""
