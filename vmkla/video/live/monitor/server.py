"""The monitor's process: a web server that takes what is left of the machine, and ends with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2

from vmkla.imports import require
from vmkla.video.live.monitor.app import MonitorLimits, build_app
from vmkla.video.live.monitor.feeds import PictureFeed, StatusFeed

if TYPE_CHECKING:
    from vmkla.video.live.link.board import Board
    from vmkla.video.live.link.ring import RingReader
    from vmkla.video.live.monitor.access import Access

_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def serve(
    listener: socket.socket, access: Access, limits: MonitorLimits, shown: RingReader, status: Board
) -> None:
    """Serve the page until the parent ends or the process is killed; the target of a child process.

    Args:
        listener: see ``listen``.
        access: who gets an answer.
        limits: how many answers, and how fast.
        shown: pictures as shown.
        status: what ``MonitorStatus.to_json`` gave.
    Raises:
        MissingDependencyError: the extra ``monitor`` is not installed.
    """
    _depend_on_parent()
    uvicorn = require("uvicorn", extra="monitor", purpose="the monitor page (--monitor)")
    # Uvicorn would log addresses of clients, what they sent, and tracebacks.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).disabled = True
    config = uvicorn.Config(
        build_app(access, limits, StatusFeed(status), PictureFeed(shown)),
        http=_guarded_protocol(limits),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16 * 1024,
    )
    asyncio.run(_serve_beside_parent(uvicorn.Server(config), listener))


async def _serve_beside_parent(server: Any, listener: socket.socket) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a child's main function"
    # The other end of this pipe closes however the parent ends.
    asyncio.get_running_loop().add_reader(parent.sentinel, os._exit, 0)
    server.capture_signals = _signals_as_they_are
    await server.serve(sockets=[listener])


@contextlib.contextmanager
def _signals_as_they_are() -> Iterator[None]:
    yield


def _depend_on_parent() -> None:
    """See to this process's end, and keep OpenCV to one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, b"vmkla-monitor", 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    cv2.setNumThreads(1)


def _guarded_protocol(limits: MonitorLimits) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP protocol with a limit to the number of connections and to the patience with each."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    open_by_host: Counter[str] = Counter()

    class GuardedProtocol(H11Protocol):
        _patience: asyncio.TimerHandle | None = None
        _host = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            host = str((transport.get_extra_info("peername") or ("",))[0])
            elsewhere = bool(host) and not ipaddress.ip_address(host.partition("%")[0]).is_loopback
            if sum(open_by_host.values()) >= limits.connections or (
                elsewhere and open_by_host[host] >= limits.connections_per_host
            ):
                transport.write(_FULL)
                transport.close()
                return
            self._host = host
            open_by_host[host] += 1
            super().connection_made(transport)
            self._be_patient()

        def data_received(self, data: bytes) -> None:
            if self._patience is not None:
                super().data_received(data)

        def on_response_complete(self) -> None:
            self._be_patient()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._patience is None:
                return
            self._patience.cancel()
            open_by_host[self._host] -= 1
            if not open_by_host[self._host]:
                del open_by_host[self._host]
            super().connection_lost(exc)

        def _be_patient(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
            self._patience = self.loop.call_later(limits.answer_within_s, self.transport.abort)

    return GuardedProtocol
