"""Spoilt requests to the monitor page: nothing comes out without the token, and every answer is guarded."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from tests.fuzz.spoilers import spoil_bytes
from tests.video.live.monitor.displays import MALFORMED_HOSTS, SECURITY, TOKEN, Client, Display, served
from vmkla.video.live.monitor.app import COOKIE, MonitorLimits

pytestmark = pytest.mark.slow

REQUESTS = 1000
"""In CI; with ``--fuzz-seconds`` a tenth of these seconds is spent here in addition."""
ANSWERED_S = 0.3
ALLOWED = {200, 400, 401, 403, 405, 421, 503}
LIMITS = MonitorLimits(answers_per_s=1e5, answers_without_token_per_s=1e5)
_PATHS = (
    "/", "/page.js", "/page.css", "/status.json", "/picture.jpg", "/none", "//page.css", "*", "/?token=wrong",
    "/page.css/../picture.jpg", "http://localhost/picture.jpg", "/%2e%2e/page.css?/picture.jpg",
)  # fmt: skip
_HOSTS = (*MALFORMED_HOSTS, "localhost", "127.0.0.1:80", "[::1]", "evil.example", "")
_HEADERS = (
    "Connection: close", "Connection: keep-alive, Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked",
    "Content-Length: 5", "Content-Length: 99999999999999999999", "Expect: 100-continue",
    f"Cookie: {COOKIE}=x", "Authorization: Bearer wrong", "Cookie: " + "a=b;" * 300,
    "X-Forwarded-Host: localhost/page.css", "Sec-Fetch-Site: cross-site", "Range: bytes=0-1",
    "Host: localhost",
)  # fmt: skip


def request(rng: Random) -> bytes:
    """One or two requests, perhaps spoilt."""
    made = b""
    for _ in range(rng.choice((1, 1, 2))):
        method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PRI", "get"))
        version = rng.choice(("1.1", "1.1", "1.0", "2.0", "9.9"))
        headers = [
            f"Host: {rng.choice(_HOSTS)}",
            *rng.sample(_HEADERS, rng.randrange(4)),
            "Connection: close",
        ]
        rng.shuffle(headers)
        lines = (
            f"{method} {rng.choice(_PATHS)} HTTP/{version}",
            *headers,
            "",
            rng.choice(("", "5\r\nhello\r\n0\r\n\r\n")),
        )
        made += "\r\n".join(lines).encode("latin-1")
    return spoil_bytes(made, rng) if rng.random() < 0.6 else made


def answer(address: tuple[str, int], sent: bytes) -> bytes:
    """All that comes back within a moment."""
    received = b""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=10) as connection:
        connection.sendall(sent)
        connection.settimeout(ANSWERED_S)
        while piece := connection.recv(65536):
            received += piece
    return received


def check(sent: bytes, received: bytes) -> int:
    """The number of answers; AssertionError when one of them is not as it must be."""
    assert TOKEN.encode() not in received and b"Traceback" not in received, sent
    assert (
        b"\xff\xd8\xff" not in received and b'"live"' not in received and b"followPicture" not in received
    ), sent
    heads = re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", received, re.DOTALL)
    for status, head in heads:
        if status == b"100":
            continue
        assert int(status) in ALLOWED, (status, sent)
        fields = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))
        }
        assert SECURITY.items() <= fields.items() and "content-security-policy" in fields, (status, sent)
    return len(heads)


def test_spoilt_requests_get_guarded_refusals(pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("--fuzz-seed", 0)
    end_s = time.monotonic() + pytestconfig.getoption("--fuzz-seconds", 0.0) / 10
    with Display() as display, served(display, TOKEN, LIMITS) as monitor, ThreadPoolExecutor(16) as senders:
        client, pid = Client(monitor.url), monitor.pid

        def one(number: int) -> int:
            sent = request(Random(f"requests/{seed}/{number}"))
            return check(sent, answer(client.address, sent))

        number = answers = 0
        while number < REQUESTS or time.monotonic() < end_s:
            answers += sum(senders.map(one, range(number, number + 200)))
            number += 200
        assert monitor.pid == pid and monitor.restarts == 0
        assert client.status(Authorization=f"Bearer {TOKEN}")["live"]
    print(f"\nrequests: {number} sent, {answers} answers")
    assert answers > number / 2
