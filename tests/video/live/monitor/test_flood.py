"""Strangers who flood the page of this machine, while the token's holder goes on reading."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections import deque

import pytest

from tests.video.live.monitor.displays import TOKEN, Client, Display, served, wait_for

ANSWERED_WITHIN_S = 1.0
FLOOD_PER_S = 500
HELD = 200
"""Connections that a flood keeps open; it leaves the older ones without waiting for an answer."""


def flood(client: Client, requests: int, sent: list[int]) -> None:
    """Ask so many times without the token, ``FLOOD_PER_S`` times a second, and stop."""
    held: deque[socket.socket] = deque()
    request = b"GET /picture.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    begun_s = time.monotonic()
    for number in range(requests):
        time.sleep(max(0.0, begun_s + number / FLOOD_PER_S - time.monotonic()))
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(client.address, timeout=5))
            held[-1].sendall(request)
            sent[0] += 1
        if len(held) > HELD:
            held.popleft().close()
    for connection in held:
        connection.close()


class Holder:
    """Reads the status over one connection, and the frame over a new one each time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept = http.client.HTTPConnection(*client.address, timeout=30)
        self.took_s: list[float] = []

    def read(self) -> None:
        """Ask once in each way."""
        self._timed(self._kept, "/status.json")
        with contextlib.closing(http.client.HTTPConnection(*self._client.address, timeout=30)) as fresh:
            self._timed(fresh, "/picture.jpg")

    def close(self) -> None:
        """End the connection that was kept."""
        self._kept.close()

    def _timed(self, connection: http.client.HTTPConnection, path: str) -> None:
        begun_s = time.monotonic()
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 204), f"{path}: {answer.status}"
        self.took_s.append(time.monotonic() - begun_s)


@pytest.mark.quiet
@pytest.mark.parametrize("requests", [750, pytest.param(4000, marks=pytest.mark.slow)])
def test_the_holder_of_the_token_is_answered_in_a_flood(display: Display, requests: int) -> None:
    with served(display, TOKEN) as monitor:
        client = Client(monitor.url)
        holder = Holder(client)
        holder.read()
        sent = [0]
        flooding = threading.Thread(target=flood, args=(client, requests, sent), daemon=True)
        flooding.start()
        while flooding.is_alive():
            holder.read()
            time.sleep(0.02)
        flooding.join()
        for _ in range(10):
            holder.read()
        holder.close()
        begun_s = time.monotonic()
        status = wait_for("an answer that is no 503", lambda: (got := client.ask("/")[0]) != 503 and got)
        assert status == 401 and time.monotonic() - begun_s < 3, "the flood left no debt"
        assert monitor.restarts == 0
    assert sent[0] >= 0.9 * requests
    assert max(holder.took_s) < ANSWERED_WITHIN_S


@pytest.mark.quiet
def test_strangers_who_wait_are_sent_away_after_a_second(display: Display) -> None:
    with served(display, TOKEN) as monitor:
        client = Client(monitor.url)
        statuses: list[tuple[int, float]] = []

        def ask() -> None:
            begun_s = time.monotonic()
            status = client.ask("/picture.jpg")[0]
            statuses.append((status, time.monotonic() - begun_s))

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert {status for status, _ in statuses} == {401, 503}
    waits_s = [took_s for status, took_s in statuses if status == 503]
    assert len(waits_s) >= 20 and 0.9 < min(waits_s) and max(waits_s) < 3
