"""Reports to the service manager (systemd): that the display loop turns, and the state of the AI."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from vmkla.video.live.frame import LiveStatus
from vmkla.video.live.status_strip import AI_WORDS

_EVERY_S = 0.5


@contextlib.contextmanager
def service_reports(address: str | None) -> Iterator[Callable[[LiveStatus | None], None]]:
    """Report over a socket of sd_notify(3) that the display loop is alive, and at the end that it stops.

    No report waits: one that the socket does not take at once is dropped, and the next one follows.

    Args:
        address: what systemd sets ``NOTIFY_SOCKET`` to: a path, or ``@`` and an abstract name. None or an
            empty one reports to nobody.
    Yields:
        A function for the display loop to call on each turn with what the strip states, None before the first
        frame. It sends a report every 0.5 s.
    """
    if not address:
        yield lambda status: None
        return
    to = "\0" + address[1:] if address.startswith("@") else address
    due_s = 0.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)

        def send(message: str) -> None:
            with contextlib.suppress(OSError):
                channel.sendto(message.encode(), to)

        def turned(status: LiveStatus | None) -> None:
            nonlocal due_s
            now_s = time.monotonic()
            if now_s < due_s:
                return
            due_s = now_s + _EVERY_S
            words = ("no frame yet",) if status is None else (AI_WORDS[status.ai], status.ai_reason)
            send(f"READY=1\nWATCHDOG=1\nSTATUS={': '.join(filter(None, words))}")

        try:
            yield turned
        finally:
            send("STOPPING=1")
