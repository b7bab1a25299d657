"""The monitor's web application: five fixed addresses, read only, behind one guard."""

from __future__ import annotations

import asyncio
import http.cookies
import importlib.resources
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from vmkla.imports import require

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vmkla.video.live.monitor.access import Access
    from vmkla.video.live.monitor.feeds import PictureFeed, StatusFeed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "vmkla_monitor"
_PURPOSE = "the monitor page (--monitor)"
_PAGE = (("/", "page.html", "text/html"), ("/page.js", "page.js", "text/javascript"))
_STYLE = "/page.css"  # also of the page that asks for the token, so it needs none
_SECURITY_HEADERS = (
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
    """What the monitor gives at most, to all clients together.

    Attributes:
        answers_per_s: a client that asks faster waits, so it neither gets more nor costs more.
        refusals_per_s: answers to requests without the token, so that guessing it takes for ever.
        connections: open at once.
        connections_per_host: of one machine other than this one.
        answer_within_s: a connection on which no answer is finished for so long is cut; its client is silent,
            or reads too slowly.
    """

    answers_per_s: float = 120.0
    refusals_per_s: float = 5.0
    connections: int = 64
    connections_per_host: int = 16
    answer_within_s: float = 10.0


class Pace:
    """Lets callers through in the order they came, at most so many a second.

    Args:
        per_s: the rate.
        burst: how many may pass at once after a rest.
    """

    def __init__(self, per_s: float, *, burst: int) -> None:
        self._step_s = 1 / per_s
        self._rest_s = burst / per_s
        self._free_s = float("-inf")

    async def turn(self) -> None:
        """Wait for this caller's turn."""
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(self._free_s + self._step_s, now_s - self._rest_s)
        if self._free_s > now_s:
            await asyncio.sleep(self._free_s - now_s)


class Guard:
    """What every request meets first: method, host, origin, token, pace; and the headers of every answer.

    Args:
        app: what answers those who pass.
        access: who passes.
        limits: how often.
    """

    def __init__(self, app: Application, access: Access, limits: MonitorLimits) -> None:
        self._app = app
        self._access = access
        self._answers = Pace(limits.answers_per_s, burst=20)
        self._refusals = Pace(limits.refusals_per_s, burst=3)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        from starlette.requests import Request

        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS]
            await send(message)

        await self._answers.turn()
        request = Request(scope)
        answer = self._refusal(request)
        if answer is None and not self._has_token(request) and request.url.path != _STYLE:
            answer = await self._ask_for_token(request)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to what nobody may ask; None for all else."""
        from starlette.responses import PlainTextResponse

        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This page can only be read.\n", 405, {"Allow": "GET, HEAD"})
        if not self._access.host_allowed(request.headers.get("host", "")):
            return PlainTextResponse("The page is not served under this name.\n", 421)
        # A page elsewhere may lead here, and may not load anything from here.
        site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return PlainTextResponse("Other pages may not load this one.\n", 403)
        return None

    def _has_token(self, request: Request) -> bool:
        if self._access.token is None:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._access.token_allowed(token.strip()):
            return True
        return self._access.cookie_allowed(_cookie(request))

    async def _ask_for_token(self, request: Request) -> Response:
        """In the address, once, for a cookie; so it stays in no bookmark and in no history."""
        from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

        given = parse_qs(request.url.query).get("token", [""])[0]
        if request.url.path == "/" and given and self._access.token_allowed(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self._access.cookie, httponly=True, samesite="strict", path="/")
            return answer
        await self._refusals.turn()
        headers = {"WWW-Authenticate": "Bearer"}
        if request.url.path == "/":
            return HTMLResponse(_read_page("token.html"), 401, headers)
        return PlainTextResponse("This page needs its token.\n", 401, headers)


def build_app(
    access: Access, limits: MonitorLimits, statuses: StatusFeed, pictures: PictureFeed
) -> Application:
    """The application of the monitor.

    Args:
        access: who gets an answer.
        limits: how often.
        statuses, pictures: what the answers hold.
    Raises:
        MissingDependencyError: Starlette is not installed.
    """
    require("starlette", extra="monitor", purpose=_PURPOSE)
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    async def status(request: Request) -> Response:
        return Response(statuses.answer(), media_type="application/json")

    async def picture(request: Request) -> Response:
        newest = await pictures.newest()
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
    routes += [Route("/status.json", status), Route("/picture.jpg", picture)]
    app = Starlette(routes=routes, exception_handlers={Exception: failed})
    app.router.redirect_slashes = False  # its answer would repeat what was asked
    return Guard(app, access, limits)


def _read_page(name: str) -> bytes:
    return importlib.resources.files(__package__ or "").joinpath(name).read_bytes()


def _cookie(request: Request) -> str:
    cookies: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
    try:
        cookies.load(request.headers.get("cookie", ""))
    except http.cookies.CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
