"""Clients of every kind, and a display that does not notice them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.video.live.monitor.displays import SECURITY, Client, Display, served, wait_for
from vmkla.video.live.monitor.app import MonitorLimits
from vmkla.video.live.monitor.process import Monitor

HAMMERING_S = 3.0
CLIENTS = 50
PATIENT_S = 1.0


@pytest.fixture
def impatient(display: Display) -> Iterator[Monitor]:
    """A monitor for eight connections that cuts the silent ones soon."""
    limits = MonitorLimits(connections=8, answer_within_s=PATIENT_S)
    with served(display, limits=limits) as monitor:
        yield monitor


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def hammer(client: Client, end_s: float, answers: list[int], failures: list[Exception]) -> None:
    """Ask without a pause, over one connection."""
    try:
        connection = http.client.HTTPConnection(*client.address, timeout=30)
        while time.monotonic() < end_s:
            connection.request("GET", "/picture.jpg" if len(answers) % 3 else "/status.json")
            answer = connection.getresponse()
            answer.read()
            answers.append(answer.status)
        connection.close()
    except Exception as error:  # handed to the test
        failures.append(error)


def test_fifty_clients_that_hammer_do_not_touch_the_display() -> None:
    with Display(480, 640) as display, served(display) as monitor:
        client = Client(monitor.url)
        wait_for("ten pictures", lambda: display.sequence > 10)
        pid = monitor.pid
        assert pid is not None
        before_bytes = resident_bytes(pid)
        first = len(display.publish_s)
        answers: list[list[int]] = [[] for _ in range(CLIENTS)]
        failures: list[Exception] = []
        begun_s = time.monotonic()
        end_s = begun_s + HAMMERING_S
        threads = [
            threading.Thread(target=hammer, args=(client, end_s, mine, failures), daemon=True)
            for mine in answers
        ]
        for thread in threads:
            thread.start()
        beside = client.status()  # an honest reader among them
        for thread in threads:
            thread.join(60)
        took_s = time.monotonic() - begun_s
        during_s = display.publish_s[first:]
        assert not failures, failures[0]
        assert monitor.pid == pid and monitor.restarts == 0
        after_bytes = resident_bytes(pid)
    assert beside["live"] and beside["status"]["ai"] == "on"
    assert all(answers), "everyone got something"
    assert {status for mine in answers for status in mine} <= {200, 204}
    # However many ask, the page answers at its own rate.
    assert sum(map(len, answers)) <= MonitorLimits().answers_per_s * took_s + 20 + CLIENTS
    # Every frame was published, and publishing waited for nobody: a wait would be as long as the hammering.
    assert len(during_s) >= 0.5 * 30 * HAMMERING_S
    assert sorted(during_s)[len(during_s) // 2] < 0.05 and max(during_s) < 1.0
    assert after_bytes - before_bytes < 100e6


def test_silent_and_slow_clients_are_cut(display: Display, impatient: Monitor) -> None:
    address = Client(impatient.url).address
    page_bytes = len(Client(impatient.url).ask("/page.js")[2])
    begun_s = time.monotonic()
    silent = socket.create_connection(address, timeout=30)
    half = socket.create_connection(address, timeout=30)
    half.sendall(b"GET /status.json HTTP/1.1\r\nHost: loc")
    slow = socket.socket()
    slow.settimeout(30)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(address)
    slow.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
    for connection in (silent, half):
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        connection.close()
    assert time.monotonic() - begun_s >= 0.9 * PATIENT_S, "they had their time"
    time.sleep(2 * PATIENT_S)  # nothing is read from the third; its answers fill all buffers on the way
    read = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := slow.recv(65536):
            read += len(piece)
    assert read < 0.5 * 400 * page_bytes, "it was cut in the middle"
    slow.close()
    assert Client(impatient.url).status()["live"]


def closed(connection: socket.socket) -> bool:
    """Whether the monitor has ended this connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_the_oldest_silent_connection_makes_room(impatient: Monitor) -> None:
    client = Client(impatient.url)
    held = [socket.create_connection(client.address, timeout=30)]
    time.sleep(0.1)
    held += [socket.create_connection(client.address, timeout=30) for _ in range(7)]
    time.sleep(0.1)
    assert client.ask("/status.json")[0] == 200
    assert [closed(connection) for connection in held] == [True] + [False] * 7
    for connection in held:
        connection.close()


def test_readers_are_never_closed_for_others(impatient: Monitor) -> None:
    client = Client(impatient.url)
    readers = [http.client.HTTPConnection(*client.address, timeout=30) for _ in range(8)]
    for reader in readers:
        reader.request("GET", "/status.json")
        assert reader.getresponse().read()
    status, headers, _ = client.ask("/status.json")
    assert status == 503 and SECURITY.items() <= headers.items()
    for reader in readers:
        reader.request("GET", "/page.css")
        assert reader.getresponse().read()
    wait_for("a free place", lambda: client.ask("/status.json")[0] == 200)
    for reader in readers:
        reader.close()


def test_a_client_that_goes_away_at_any_moment_does_no_harm(impatient: Monitor) -> None:
    client = Client(impatient.url)
    for sent in (
        b"",
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"GET /picture.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ) * 10:
        with socket.create_connection(client.address, timeout=30) as connection:
            connection.sendall(sent)
    pid = impatient.pid
    wait_for("a free place", lambda: client.ask("/status.json")[0] == 200)
    assert impatient.pid == pid and impatient.restarts == 0
