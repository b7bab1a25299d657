"""The web application of the monitor: five read-only addresses behind one guard."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from vmkla.imports import require
from vmkla.video.live.monitor.access import parse_host
from vmkla.video.live.monitor.rate_limit import RateLimit

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response

    from vmkla.video.live.monitor.access import Access
    from vmkla.video.live.monitor.feeds import FrameFeed, StatusFeed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "vmkla_monitor"
HAS_TOKEN = "vmkla.has_token"
"""Key in a request's scope, set by the guard: whether the caller has given the token."""

_PURPOSE = "the monitor page (--monitor)"
_PAGE = (("/", "page.html", "text/html"), ("/page.js", "page.js", "text/javascript"))
_MAX_FIELDS = 8
_STYLE = "/page.css"  # also used by the page that asks for the token, so it needs none
SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_log = logging.getLogger("vmkla.monitor")


@dataclass(frozen=True)
class MonitorLimits:
    """Limits of the monitor, for all clients together.

    Attributes:
        answers_per_s: answers a second to callers with the token; requests beyond wait.
        answers_without_token_per_s: answers a second to other callers, who have a queue of their own.
        wait_s: wait of a request after which it is answered with 503.
        connections: open connections; beyond, one without the token is closed for a new one.
        connections_per_host: open connections of one other machine; an IPv6 /64 counts as one.
        answer_within_s: time without a finished answer after which a connection is cut: its client is silent
            or reads too slowly.
    """

    answers_per_s: float = 120.0
    answers_without_token_per_s: float = 5.0
    wait_s: float = 1.0
    connections: int = 64
    connections_per_host: int = 16
    answer_within_s: float = 10.0


class Guard:
    """Checks every request first: rate, method, host, origin, token.

    Callers with and without the token wait in separate queues, so neither delays the other.

    Args:
        app: application that answers accepted requests.
        access: access rules.
        limits: limits of the monitor.
    """

    def __init__(self, app: Application, access: Access, limits: MonitorLimits) -> None:
        self._app = app
        self._access = access
        self._holders = RateLimit(limits.answers_per_s, burst=20, wait_s=limits.wait_s)
        self._others = RateLimit(limits.answers_without_token_per_s, burst=3, wait_s=limits.wait_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        from starlette.datastructures import Headers

        if scope["type"] != "http":
            return
        # Checked before the queue, so cheap whatever a stranger sends.
        headers = Headers(scope=scope)
        host = parse_host(headers.get("host", ""))
        if host is None or _has_body(headers):
            await _malformed()(scope, receive, send)
            return
        given = self._token_in_address(scope)
        scope[HAS_TOKEN] = given or self._has_token(headers)
        pace = self._holders if scope[HAS_TOKEN] else self._others
        turn = await _unless_gone(pace.turn(), receive)
        if turn is None:
            return
        answer: Application | None = self._refusal(scope, headers, host) if turn else _busy()
        if answer is None and given:
            answer = self._exchange()
        # Starlette routes by this path as well. The one in its `request.url` can come from the Host header.
        if answer is None and not scope[HAS_TOKEN] and scope["path"] != _STYLE:
            answer = _ask_for_token(scope)
        await (answer or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers, host: str) -> Response | None:
        """Return the answer to a request that nobody may make; None for any other."""
        from starlette.responses import PlainTextResponse

        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("This page can only be read.\n", 405, {"Allow": "GET, HEAD"})
        if not self._access.host_allowed(host):
            return PlainTextResponse("The page is not served under this name.\n", 421)
        # Foreign pages may link here, but may not load anything from here.
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return PlainTextResponse("Other pages may not load this one.\n", 403)
        return None

    def _has_token(self, headers: Headers) -> bool:
        if self._access.token is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._access.token_allowed(token.strip()):
            return True
        return self._access.cookie_allowed(_cookie(headers.get("cookie", "")))

    def _token_in_address(self, scope: Scope) -> bool:
        if self._access.token is None or scope["path"] != "/":
            return False
        try:
            fields = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=_MAX_FIELDS)
        except ValueError:
            return False
        return self._access.token_allowed(fields.get("token", [""])[0])

    def _exchange(self) -> Response:
        """Exchange the token in the address for a cookie, so that it stays in no bookmark or history."""
        from starlette.responses import RedirectResponse

        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self._access.cookie, httponly=True, samesite="strict", path="/")
        return answer


async def _unless_gone(turn: Coroutine[Any, Any, bool], receive: Receive) -> bool | None:
    """Return the result of ``turn``; None when the client leaves before."""
    waiting = asyncio.ensure_future(turn)
    leaving = asyncio.ensure_future(_goodbye(receive))
    await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        leaving.cancel()
        return waiting.result()
    waiting.cancel()
    return None


async def _goodbye(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _malformed() -> Response:
    from starlette.responses import PlainTextResponse

    text = "The request is malformed: its Host is none, or it has a body.\n"
    return PlainTextResponse(text, 400, {"Connection": "close"})


def _busy() -> Response:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("The monitor is busy.\n", 503, {"Retry-After": "1", "Connection": "close"})


def _ask_for_token(scope: Scope) -> Response:
    from starlette.responses import HTMLResponse, PlainTextResponse

    headers = {"WWW-Authenticate": "Bearer"}
    if scope["path"] == "/":
        return HTMLResponse(_read_page("token.html"), 401, headers)
    return PlainTextResponse("This page needs its token.\n", 401, headers)


def build_app(access: Access, limits: MonitorLimits, statuses: StatusFeed, frames: FrameFeed) -> Application:
    """Build the application of the monitor.

    Args:
        access: access rules.
        limits: limits of the monitor.
        statuses, frames: feeds for the answers.
    Raises:
        MissingDependencyError: Starlette is not installed.
    """
    require("starlette", extra="monitor", purpose=_PURPOSE)
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    async def status(request: Request) -> Response:
        return Response(statuses.answer(), media_type="application/json")

    async def frame(request: Request) -> Response:
        newest = await frames.newest()
        if newest is None:
            return Response(status_code=204)
        age_ms = (asyncio.get_running_loop().time() - newest.captured_s) * 1e3
        headers = {"X-Picture": str(newest.sequence), "X-Age-Ms": f"{age_ms:.0f}"}
        return Response(newest.data, headers=headers, media_type="image/jpeg")

    async def failed(request: Request, error: Exception) -> Response:
        _log.error("the monitor failed to answer: %s", type(error).__name__)
        return PlainTextResponse("The monitor failed to answer.\n", 500)

    def fixed(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        content = _read_page(name)

        async def answer(request: Request) -> Response:
            return Response(content, media_type=media_type)

        return answer

    routes = [Route(path, fixed(name, media)) for path, name, media in _PAGE]
    routes.append(Route(_STYLE, fixed("page.css", "text/css")))
    routes += [Route("/status.json", status), Route("/picture.jpg", frame)]
    app = Starlette(routes=routes, exception_handlers={Exception: failed})
    app.router.redirect_slashes = False  # its answer would quote the request
    return Guard(app, access, limits)


def _read_page(name: str) -> bytes:
    return importlib.resources.files(__package__ or "").joinpath(name).read_bytes()


def _cookie(header: str) -> str:
    """Return the monitor's own cookie. Python's parser takes 1.5 s for 16 kB of backslashes."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""
