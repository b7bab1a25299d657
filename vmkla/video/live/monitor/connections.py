"""Limit the connections to the monitor, so that the holder of the token always gets one."""

from __future__ import annotations

import asyncio
import enum
import ipaddress
from collections.abc import Iterable
from typing import Any

from vmkla.video.live.monitor.app import HAS_TOKEN, SECURITY_HEADERS, MonitorLimits

_SHARED_PREFIX = 64
_MAX_LINES = 100  # of a request; a browser sends about 20, and h11 takes 2.5 us for each
_HEAD = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n" + b"".join(
    name + b": " + value + b"\r\n" for name, value in SECURITY_HEADERS
)
_FULL = _HEAD % b"503 Service Unavailable" + b"\r\n"
_MALFORMED = _HEAD % b"400 Bad Request" + b"\r\n"


class Standing(enum.IntEnum):
    """What is known of a connection's client; connections with lower values are closed first."""

    STRANGER = 0  # made a request without the token
    UNKNOWN = 1  # no request yet
    HOLDER = 2  # has given the token, or none is needed


def machine(peer: str) -> str | None:
    """Return what counts as one machine: an IPv4 address or the /64 of an IPv6 address; None for this one.

    A machine with an IPv6 address usually has all addresses of its /64.
    """
    if not peer:
        return None
    address = ipaddress.ip_address(peer.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), _SHARED_PREFIX), strict=False))
    return str(address)


def guarded_protocol(limits: MonitorLimits) -> type[asyncio.Protocol]:
    """Return Uvicorn's HTTP protocol with limits on the number of connections and the time of each.

    When the limit is reached, the oldest connection without the token is closed for a new one.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    opened: dict[GuardedProtocol, None] = {}  # oldest first

    class GuardedProtocol(H11Protocol):
        _patience: asyncio.TimerHandle | None = None
        _standing = Standing.UNKNOWN
        _lines = 0  # of the request that is coming in
        machine: str | None = None

        @property
        def standing(self) -> Standing:
            marked: Any = self.scope.get(HAS_TOKEN) if self.scope is not None else None
            if marked:
                self._standing = Standing.HOLDER
            elif marked is not None and self._standing is Standing.UNKNOWN:
                self._standing = Standing.STRANGER
            return self._standing

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.machine = machine(str((transport.get_extra_info("peername") or ("",))[0]))
            if not self._has_room():
                transport.write(_FULL)
                transport.close()
                return
            opened[self] = None
            super().connection_made(transport)
            self._be_patient()

        def _has_room(self) -> bool:
            if self.machine is not None:
                neighbours = [other for other in opened if other.machine == self.machine]
                if len(neighbours) >= limits.connections_per_host:
                    return _close_one(neighbours)
            return len(opened) < limits.connections or _close_one(opened)

        def data_received(self, data: bytes) -> None:
            if self not in opened:
                return
            for number, part in enumerate(data.split(b"\r\n\r\n")):
                self._lines = part.count(b"\n") + (0 if number else self._lines)
                if self._lines > _MAX_LINES:
                    self.send_400_response("too many lines")
                    return
            super().data_received(data)

        def on_response_complete(self) -> None:
            self._standing = self.standing  # the next request has a scope of its own
            self._lines = 0
            self._be_patient()
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            # Uvicorn's own lacks the security headers, and may interrupt another answer.
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(_MALFORMED)
            self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._patience is None:
                return  # it was never accepted
            self._patience.cancel()
            opened.pop(self, None)
            super().connection_lost(exc)

        def make_room(self) -> None:
            """Close this connection at once."""
            del opened[self]
            self.transport.abort()

        def _be_patient(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
            self._patience = self.loop.call_later(limits.answer_within_s, self.transport.abort)

    def _close_one(connections: Iterable[GuardedProtocol]) -> bool:
        """Close the oldest connection of the lowest standing; return False when all have the token."""
        first = min(connections, key=lambda connection: connection.standing)
        if first.standing is Standing.HOLDER:
            return False
        first.make_room()
        return True

    return GuardedProtocol
