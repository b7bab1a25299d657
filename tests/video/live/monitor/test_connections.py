"""Which connections make room for others, and what counts as one machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from vmkla.video.live.monitor.app import HAS_TOKEN, MonitorLimits
from vmkla.video.live.monitor.connections import Standing, guarded_protocol, machine

LIMITS = MonitorLimits(connections=6, connections_per_host=3)


@pytest.mark.parametrize("peer", ["", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_has_no_limit_of_its_own(peer: str) -> None:
    assert machine(peer) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::2", "::3", True),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one_machine(one: str, other: str, same: bool) -> None:
    assert (machine(one) == machine(other)) is same and machine(one) is not None


class Wire(asyncio.Transport):
    """A connection as the protocol sees it; the address of its other end is made up."""

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 50_000), "sockname": ("2001:db8::1", 80)})
        self.written = b""
        self.ended = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended


class Server:
    """The protocol of a server with the limits above, and its connections."""

    def __init__(self) -> None:
        self._protocol = guarded_protocol(LIMITS)
        self._config = uvicorn.Config(lambda *_: None, lifespan="off", log_config=None)
        self._state = ServerState()

    def connect(self, peer: str, standing: Standing = Standing.UNKNOWN) -> Wire:
        wire = Wire(peer)
        protocol: Any = self._protocol(self._config, self._state, {})  # type: ignore[call-arg]
        protocol.connection_made(wire)
        if standing is not Standing.UNKNOWN:
            protocol.scope = {HAS_TOKEN: standing is Standing.HOLDER}
        return wire


def test_connections_of_one_ipv6_network_are_counted_together() -> None:
    async def check() -> None:
        server = Server()
        wires = [server.connect(f"2001:db8::{number}", Standing.HOLDER) for number in range(3)]
        more = server.connect("2001:db8::ffff")
        assert more.ended and more.written.startswith(b"HTTP/1.1 503 ")
        assert not any(wire.ended for wire in wires)
        assert not server.connect("2001:db8:0:1::1").ended

    asyncio.run(check())


def test_a_machine_with_too_many_loses_one_of_its_own() -> None:
    async def check() -> None:
        server = Server()
        neighbour = server.connect("192.0.2.9", Standing.STRANGER)
        wires = [server.connect("192.0.2.1") for _ in range(4)]
        assert [wire.ended for wire in wires] == [True, False, False, False] and not neighbour.ended

    asyncio.run(check())


def test_strangers_make_room_first_and_readers_never() -> None:
    async def check() -> None:
        server = Server()
        reader = server.connect("127.0.0.1", Standing.HOLDER)
        silent = server.connect("127.0.0.1")
        strangers = [server.connect("127.0.0.1", Standing.STRANGER) for _ in range(4)]
        readers = [server.connect("127.0.0.1", Standing.HOLDER) for _ in range(4)]
        assert all(wire.ended for wire in strangers) and not silent.ended
        readers.append(server.connect("127.0.0.1", Standing.HOLDER))
        assert silent.ended
        late = server.connect("127.0.0.1")
        assert late.ended and late.written.startswith(b"HTTP/1.1 503 ")
        assert not any(wire.ended for wire in (reader, *readers))

    asyncio.run(check())
