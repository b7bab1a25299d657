"""The page over HTTP: read only, under its own name, behind its token, and silent about everything else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from tests.video.live.monitor.displays import (
    MALFORMED_HOSTS,
    SECURITY,
    TOKEN,
    Client,
    Display,
    served,
    wait_for,
)

PATHS = ("/", "/page.js", "/page.css", "/status.json", "/picture.jpg")


@pytest.fixture(scope="module")
def client(display: Display) -> Iterator[Client]:
    """Of a monitor without a token."""
    with served(display) as monitor:
        yield Client(monitor.url)


@pytest.fixture(scope="module")
def guarded(display: Display) -> Iterator[Client]:
    """Of a monitor with one."""
    with served(display, TOKEN) as monitor:
        yield Client(monitor.url)


def test_the_frame_is_the_one_shown(display: Display, client: Client) -> None:
    status, headers, body = wait_for("a picture", lambda: (got := client.ask("/picture.jpg"))[2] and got)
    assert status == 200 and headers["content-type"] == "image/jpeg"
    decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None and decoded.shape == display.rgb.shape
    assert np.abs(decoded.astype(int) - display.rgb).max() <= 3
    assert 0 < int(headers["x-picture"]) <= display.sequence and 0 <= int(headers["x-age-ms"]) < 1500


def test_the_status_is_the_displays(display: Display, client: Client) -> None:
    status = client.status()["status"]
    assert status["ai"] == "on" and status["signal"] == "good" and status["recording"] is None
    assert status["dropped"] == {"not taken": 3, "damaged": 2} and status["restarts"] == 4
    assert status["video_delay_ms"]["p99"] == 1.25 and status["marker_delay_ms"]["p95"] == 250
    assert sum(status["video_delay_ms"]["bars"]) == status["video_delay_ms"]["count"] > 0
    assert 0 < status["shown"] <= display.sequence


@pytest.mark.parametrize("path", [*PATHS, "/none"])
def test_every_answer_carries_the_security_headers(client: Client, path: str) -> None:
    status, headers, _ = client.ask(path)
    assert status == (404 if path == "/none" else 200)
    assert SECURITY.items() <= headers.items()
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "access-control-allow-origin" not in headers and "server" not in headers


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    for path in ("/", "/page.js", "/page.css"):
        body = client.ask(path)[2]
        assert body and not any(sign in body for sign in (b"://", b'"//', b"'//", b"url(", b"@import"))


@pytest.mark.parametrize("path", ["/", "/status.json", "/picture.jpg", "/none"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_it_can_only_be_read(client: Client, method: str, path: str) -> None:
    status, headers, _ = client.ask(path, method)
    assert status == 405 and headers["allow"] == "GET, HEAD"


def test_head_has_no_body(client: Client) -> None:
    for path in PATHS:
        status, headers, body = client.ask(path, "HEAD")
        assert status == 200 and body == b"" and int(headers["content-length"]) > 0


def test_another_name_for_this_machine_is_refused(client: Client) -> None:
    for host in ("evil.example", f"evil.example:{client.address[1]}", "localhost.evil.example", "192.0.2.7"):
        for path in PATHS:
            status, headers, body = client.ask(path, Host=host)
            assert status == 421 and host.encode() not in body and SECURITY.items() <= headers.items()
    assert client.ask(Host="localhost:9")[0] == 200, "a forwarded port is as good"
    assert client.raw(b"GET /status.json HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")


def test_other_pages_may_lead_here_and_load_nothing(client: Client) -> None:
    for site in ("cross-site", "same-site"):
        refused = client.ask("/picture.jpg", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
        assert refused[0] == 403
        assert client.ask("/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 200
    assert client.ask("/status.json", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 200


def test_nothing_is_answered_without_the_token(guarded: Client) -> None:
    for path in ("/", "/page.js", "/status.json", "/picture.jpg", "/none"):
        status, headers, body = guarded.ask(path)
        assert status == 401 and b"needs its token" in body and SECURITY.items() <= headers.items()
        assert TOKEN.encode() not in body
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        assert guarded.ask("/status.json", Authorization=f"Bearer {wrong}")[0] == 401
        assert guarded.ask("/status.json", Cookie=f"vmkla_monitor={wrong}")[0] == 401
        assert guarded.ask(f"/?token={wrong}")[0] == 401
    assert guarded.ask("/status.json", Authorization=f"Basic {TOKEN}")[0] == 401
    assert guarded.ask("/status.json", Cookie=f"vmkla_monitor={TOKEN}")[0] == 401, "the cookie is another"
    assert guarded.ask(f"/status.json?token={TOKEN}")[0] == 401, "only the page takes it in its address"
    assert guarded.ask("/status.json", Cookie='vmkla_monitor="\\')[0] == 401


def test_the_token_is_given_once_for_a_cookie(guarded: Client) -> None:
    assert guarded.ask("/status.json", Authorization=f"Bearer {TOKEN}")[0] == 200
    status, headers, body = guarded.ask(f"/?token={TOKEN}")
    assert status == 303 and headers["location"] == "/"
    cookie, *flags = headers["set-cookie"].split("; ")
    assert {flag.lower() for flag in flags} >= {"httponly", "samesite=strict", "path=/"}
    assert TOKEN not in str(headers) and TOKEN.encode() not in body
    for path in PATHS:
        assert guarded.ask(path, Cookie=f"other=1; {cookie}")[0] == 200
    assert guarded.ask("/", "POST", Cookie=cookie)[0] == 405
    assert guarded.ask("/", Host="evil.example", Cookie=cookie)[0] == 421


def test_the_token_is_not_in_an_address_of_another_name(guarded: Client) -> None:
    assert guarded.ask(f"/?token={TOKEN}", Host="evil.example")[0] == 421


def test_nothing_that_is_asked_comes_back(client: Client) -> None:
    for request in (
        b"GET /canary-path/../canary?canary=1 HTTP/1.1\r\nHost: localhost\r\nX-Canary: canary\r\n\r\n",
        b"GET /status.json/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://canary.example/canary HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"canary canary canary\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: canary\r\n\r\n",
        b"GET /" + b"canary" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        answer = client.raw(request.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost"))
        assert b"canary" not in answer and b"Traceback" not in answer
        if answer:  # closed with unread bytes, a connection may be reset before its answer is read
            assert answer[9:12] in (b"400", b"404")
            assert all(f"\r\n{name}: {value}\r\n".encode() in answer for name, value in SECURITY.items())
        assert b"location:" not in answer.lower()
    assert client.status()["live"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("header", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_a_body_is_not_read(guarded: Client, method: str, header: str) -> None:
    with socket.create_connection(guarded.address, timeout=20) as connection:
        connection.sendall(f"{method} / HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(4096):  # it ends, though the body never does
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ") and b"it has a body" in answer
    assert all(f"\r\n{name}: {value}\r\n".encode() in answer for name, value in SECURITY.items())


def test_a_request_of_very_many_lines_is_refused_unread(guarded: Client) -> None:
    bearer = f"Authorization: Bearer {TOKEN}".encode()
    head, end = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n", b"Connection: close\r\n\r\n"
    assert guarded.raw(head + b"a: b\r\n" * 90 + end).startswith(b"HTTP/1.1 401 ")
    answer = guarded.raw(head + b"a: b\r\n" * 110 + end)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"\r\nx-frame-options: DENY\r\n" in answer
    with socket.create_connection(guarded.address, timeout=20) as connection:
        connection.sendall(head)
        for _ in range(11):
            time.sleep(0.01)
            connection.sendall(b"a: b\r\n" * 10)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    with socket.create_connection(guarded.address, timeout=20) as connection:
        for _ in range(30):  # an end in two packets is an end
            connection.sendall(b"HEAD /page.css HTTP/1.1\r\nHost: localhost\r\n" + bearer + b"\r\n\r")
            time.sleep(0.01)
            connection.sendall(b"\n")
            assert connection.recv(100_000).startswith(b"HTTP/1.1 200 ")
    requests = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\na: b\r\n\r\n" * 3
    assert guarded.raw(requests + head + end).count(b"HTTP/1.1 401 ") == 4, "each has lines of its own"


def test_an_upgrade_is_answered_as_a_plain_request(client: Client) -> None:
    answer = client.raw(
        b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
        b"Upgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert b"101 Switching" not in answer


def test_a_malformed_host_is_refused_before_all_else(client: Client, guarded: Client) -> None:
    bearer = f"Authorization: Bearer {TOKEN}"
    for host in MALFORMED_HOSTS:
        for monitor, target, headers in (
            (client, "/picture.jpg", ()),
            (guarded, f"/?token={TOKEN}", ()),
            (guarded, "/picture.jpg", (bearer,)),
        ):
            status, answered, body = monitor.ask_raw(target, host, *headers)
            assert status == 400 and b"malformed" in body, host
            assert SECURITY.items() <= answered.items() and "set-cookie" not in answered
            assert answered["content-security-policy"].startswith("default-src 'none'")
    for host in MALFORMED_HOSTS[:3]:
        assert guarded.ask_raw("/picture.jpg", host)[0] == 400, host


@pytest.mark.parametrize(
    "target",
    [
        "/picture.jpg?/page.css",
        "/picture.jpg%3F/page.css",
        "/picture.jpg%23/page.css",
        "/page.css/../picture.jpg",
        "/page.css%2F..%2Fpicture.jpg",
        "/page.css/",
        "/page.css;/picture.jpg",
        "/page.css%00",
        "//page.css",
        "/PAGE.CSS",
        "http://localhost/page.css",
        "http://page.css/picture.jpg",
    ],
)
def test_only_the_style_sheet_itself_needs_no_token(guarded: Client, target: str) -> None:
    status, answered, body = guarded.ask_raw(target, "localhost")
    assert status == 401 and b"needs its token" in body and SECURITY.items() <= answered.items()


def test_the_style_sheet_by_any_spelling_is_the_style_sheet(guarded: Client) -> None:
    sheet = guarded.ask_raw("/page.css", "localhost")
    assert sheet[0] == 200 and sheet[1]["content-type"].startswith("text/css")
    assert guarded.ask_raw("/page%2Ecss?/picture.jpg", "localhost")[2] == sheet[2]


def test_an_address_with_the_token_is_left_even_by_those_who_have_the_cookie(guarded: Client) -> None:
    cookie = guarded.ask(f"/?token={TOKEN}")[1]["set-cookie"].split(";")[0]
    assert guarded.ask(f"/?token={TOKEN}", Cookie=cookie)[0] == 303
    assert guarded.ask("/?a=1&" * 20 + f"token={TOKEN}")[0] == 401, "no page sends so many fields"
