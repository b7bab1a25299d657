"""A display that publishes, and the real monitor beside it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import AiState, LiveFrame, SignalState
from vmkla.video.live.monitor.access import MonitorOptions
from vmkla.video.live.monitor.app import MonitorLimits
from vmkla.video.live.monitor.process import Monitor
from vmkla.video.live.monitor.status import (
    STATUS_CAPACITY_BYTES,
    DelayWindow,
    MonitorStatus,
    StatusEvent,
)
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import FrameRing

TOKEN = "a-token-of-the-tests-0123456789"
DEADLINE_S = 30.0
MALFORMED_HOSTS = (
    "localhost:80/page.css?",
    "localhost/page.css#",
    "127.0.0.1:[",
    "127.0.0.1:8o",
    "127.0.0.1:-1",
    "127.0.0.1:123456",
    "127.0.0.1@evil.example",
    "user:password@localhost",
    "http://localhost/",
    "[",
    "]",
    "[]",
    "[::1",
    "::1",
    "[::1]]",
    "[::1]x:80",
    "local host",
    "localhost,evil.example",
    "localhost?",
    "localhost\\evil",
    "localhost%00",
    "l\xf6calhost",
)
"""Values of the Host header that are none. The first one made Starlette before 1.0.1 read another path."""

SECURITY = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every answer, beside the content's security policy."""

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers in lower case, body."""


def wait_for(what: str, ready: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
    """Wait until ``ready`` returns something, and return it."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if found := ready():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {within_s:g} s")


class Display:
    """Publishes a frame 30 times a second and the status with it, as the display loop does."""

    def __init__(self, height: int = 120, width: int = 160) -> None:
        self.ring = FrameRing()
        self.board = Board(STATUS_CAPACITY_BYTES)
        self.events = EventLog(None)
        self.ai, self.reason, self.signal = AiState.ON, "", SignalState.GOOD
        self.rgb: npt.NDArray[np.uint8] = np.full((height, width, 3), (20, 90, 200), np.uint8)
        self.paused = threading.Event()
        self.sequence = 0
        self.publish_s: list[float] = []
        self.late_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.ring.close()
        self.board.close()
        self.events.close()

    def status(self, now_s: float) -> MonitorStatus:
        """What is published now."""
        recent = self.events.recent(20)
        return MonitorStatus(
            now_s,
            uptime_s=self.sequence / 30,
            ai=self.ai,
            ai_reason=self.reason,
            signal=self.signal,
            fps=30.0,
            received=self.sequence + 5,
            shown=self.sequence,
            video_delay=self.video.summary(now_s),
            marker_delay=self.markers.summary(now_s),
            dropped={"not taken": 3, "damaged": 2},
            restarts=4,
            frame_hw=self.rgb.shape[:2],
            events=tuple(StatusEvent(event.wall, event.kind, event.detail) for event in recent),
        )

    def _run(self) -> None:
        self.video, self.markers = DelayWindow.of_video(), DelayWindow.of_markers()
        next_s = time.monotonic()
        while not self._stop.is_set():
            next_s += 1 / 30
            self._stop.wait(max(0.0, next_s - time.monotonic()))
            if self.paused.is_set():
                continue
            begun_s = time.monotonic()
            self.sequence += 1
            self.ring.publish(LiveFrame(self.sequence, begun_s, self.rgb))
            self.publish_s.append(time.monotonic() - begun_s)
            self.late_s.append(begun_s - next_s)
            self.video.add(1.25, begun_s)
            self.markers.add(250.0, begun_s)  # beyond its limit
            if self.sequence % 3 == 0:
                self.board.publish(self.status(begun_s).to_json())


class Client:
    """Asks a monitor, over a connection of its own each time."""

    def __init__(self, url: str) -> None:
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """Status, headers in lower case, body; names of headers have ``_`` for ``-``."""
        connection = http.client.HTTPConnection(*self.address, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=sent)
            answer = connection.getresponse()
            received = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, received, answer.read()

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return the whole answer until the connection ends."""
        with socket.create_connection(self.address, timeout=DEADLINE_S) as connection:
            connection.sendall(request)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(65536):
                    answer += piece
            return answer

    def ask_raw(self, target: str, host: str, *headers: str) -> Answer:
        """Ask with this target and this Host, which other clients would normalise."""
        lines = (f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", "")
        head, _, body = self.raw("\r\n".join(lines).encode("latin-1")).partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        received = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        return int(first.split()[1]), received, body

    def status(self, **headers: str) -> dict[str, Any]:
        """Return the document that the page polls."""
        document: dict[str, Any] = json.loads(self.ask("/status.json", **headers)[2])
        return document

    def wait_until_served(self, **headers: str) -> None:
        """Return once the page shows a live run."""
        wait_for("a live status", lambda: self.status(**headers)["live"])


@contextlib.contextmanager
def served(
    display: Display, token: str | None = None, limits: MonitorLimits | None = None
) -> Iterator[Monitor]:
    """The real monitor of a display, answering."""
    monitor = Monitor(
        MonitorOptions("127.0.0.1", 0, token), display.ring.subscribe(), display.board, display.events, limits
    )
    monitor.start()
    try:
        Client(monitor.url).wait_until_served(**({"Authorization": f"Bearer {token}"} if token else {}))
        yield monitor
    finally:
        monitor.close()
