"""The monitor's process: a web server of low priority that ends with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2

from vmkla.imports import require
from vmkla.video.live.child_process import set_up_child
from vmkla.video.live.monitor.app import SECURITY_HEADERS, MonitorLimits, build_app
from vmkla.video.live.monitor.connections import guarded_protocol
from vmkla.video.live.monitor.feeds import FrameFeed, StatusFeed

if TYPE_CHECKING:
    from vmkla.video.live.monitor.access import Access
    from vmkla.video.live.shared_memory.board import Board
    from vmkla.video.live.shared_memory.ring import RingReader

# Asyncio accepts its whole backlog before it serves open connections, so its own is small.
_ACCEPTED_AT_ONCE, _BACKLOG = 16, 1024
_MAX_REQUEST_BYTES = 8 * 1024  # h11 takes 4 ms for as many header lines as fit; for 16 kB it takes 12 ms


def serve(
    listener: socket.socket, access: Access, limits: MonitorLimits, shown: RingReader, status: Board
) -> None:
    """Serve the page until the parent ends or the process is killed. The main function of the process.

    Args:
        listener: listening socket, see ``listen``.
        access: access rules.
        limits: limits of the page.
        shown: reader of the frames as shown.
        status: board with ``MonitorStatus.to_json``.
    Raises:
        MissingDependencyError: the extra ``monitor`` is not installed.
    """
    _depend_on_parent()
    uvicorn = require("uvicorn", extra="monitor", purpose="the monitor page (--monitor)")
    # Uvicorn would log addresses of clients, what they sent, and tracebacks.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).disabled = True
    config = uvicorn.Config(
        build_app(access, limits, StatusFeed(status), FrameFeed(shown)),
        http=guarded_protocol(limits),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[(name.decode(), value.decode()) for name, value in SECURITY_HEADERS],
        backlog=_ACCEPTED_AT_ONCE,
        proxy_headers=False,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=_MAX_REQUEST_BYTES,
    )
    asyncio.run(_serve_beside_parent(uvicorn.Server(config), listener))


async def _serve_beside_parent(server: Any, listener: socket.socket) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a child's main function"
    # The other end of this pipe closes however the parent ends.
    asyncio.get_running_loop().add_reader(parent.sentinel, os._exit, 0)
    server.capture_signals = _signals_as_they_are
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    listener.listen(_BACKLOG)
    await serving


@contextlib.contextmanager
def _signals_as_they_are() -> Iterator[None]:
    yield


def _depend_on_parent() -> None:
    """End this process with its parent, and keep OpenCV to one thread."""
    set_up_child("vmkla-monitor")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
