"""Who may look at the monitor page: its address, its token, and the names it may be called by."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

from vmkla.errors import BadInputError, UsageError

MIN_TOKEN_CHARACTERS = 16
_MAX_TOKEN_CHARACTERS = 256
_BACKLOG = 64
_SEND_BUFFER_BYTES = 256 * 1024
# An authority of RFC 9112 without user: a name or an IPv4 address, or an address in brackets; then a port.
_HOST = re.compile(r"(?P<name>[a-z0-9._-]*|\[[0-9a-f:.]+(?:%[a-z0-9._-]+)?\])(?::[0-9]{0,5})?")
_MAKE_TOKEN = (
    "Run: (umask 077; openssl rand -hex 16 > monitor.token), and add --monitor-token-file monitor.token"
)


@dataclass(frozen=True)
class MonitorOptions:
    """Where the monitor page is served.

    Attributes:
        host: name or address; only loopback ones go without a token.
        port: TCP port, 1 to 65535; 0 takes any free one.
        token: secret that readers of the page must give; None lets everyone in who reaches it.
    """

    host: str
    port: int
    token: str | None = field(default=None, repr=False)


def parse_monitor_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``:PORT`` or ``PORT``; an IPv6 address stands in brackets.

    Without a host it is the loopback interface.

    Raises:
        UsageError: it is none of them.
    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or (":" in host and not bracketed):
        raise UsageError(
            f"the monitor's address is {text!r}, expected HOST:PORT with a port up to 65535",
            hint="For instance: --monitor 127.0.0.1:8080",
        )
    return host or "127.0.0.1", int(port)


def read_token(path: Path) -> str:
    """The token in a file that nobody else may read.

    Raises:
        BadInputError: it cannot be read, others can read it, or it holds no token.
    """
    try:
        others = path.stat().st_mode & 0o077
        with path.open("rb") as file:
            token = file.read(4 * _MAX_TOKEN_CHARACTERS).decode("ascii", "replace").strip()
    except OSError as error:
        raise BadInputError(
            f"the monitor's token file {path} cannot be read: {error.strerror}", hint=_MAKE_TOKEN
        ) from error
    if others:
        raise BadInputError(
            f"the monitor's token file {path} can be read by other users", hint=f"Run: chmod 600 {path}"
        )
    try:
        check_token(token)
    except UsageError as error:
        raise BadInputError(f"{path}: {error.message}", hint=error.hint) from error
    return token


def check_token(token: str) -> None:
    """Refuse what is easily guessed, or cannot travel in a header.

    Raises:
        UsageError: the token is too short or too long, or holds other than visible ASCII characters.
    """
    visible = all("!" <= character <= "~" for character in token)
    if not (visible and MIN_TOKEN_CHARACTERS <= len(token) <= _MAX_TOKEN_CHARACTERS):
        raise UsageError(
            f"the monitor's token has {len(token)} characters, expected {MIN_TOKEN_CHARACTERS} to "
            f"{_MAX_TOKEN_CHARACTERS}, visible ASCII without spaces",
            hint=_MAKE_TOKEN,
        )


@dataclass(frozen=True)
class Access:
    """Who gets an answer.

    Attributes:
        host: the name or address that the page is served at, as it was given.
        loopback: only programs on this machine can reach it.
        token: what a reader must give; None lets everyone in who reaches it.
        own_names: names of this machine, lower case.
    """

    host: str
    loopback: bool
    token: str | None = field(default=None, repr=False)
    own_names: frozenset[str] = frozenset()

    def host_allowed(self, name: str) -> bool:
        """Whether a host (see ``parse_host``) is a name of this monitor.

        A page elsewhere can have a domain name of its own resolve to this machine and so pass for the same
        origin; it cannot do so with an IP address or with a name of this machine.
        """
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            own = name in ("localhost", self.host.lower())
            return own or (not self.loopback and name in self.own_names)
        return address.is_loopback or not self.loopback

    def token_allowed(self, token: str) -> bool:
        """Whether this is the token; takes equally long for every wrong one."""
        return self.token is None or _equal(token, self.token)

    def cookie_allowed(self, cookie: str) -> bool:
        """Whether this is ``cookie``; takes equally long for every wrong one."""
        return self.token is None or _equal(cookie, self.cookie)

    @property
    def cookie(self) -> str:
        """What a browser keeps in place of the token, and what the token cannot be worked out from."""
        return hmac.new(
            (self.token or "").encode(), b"cookie of the vmkla monitor", hashlib.sha256
        ).hexdigest()


def parse_host(header: str) -> str | None:
    """The host of a request's ``Host`` header without its port, in lower case; None when it is malformed."""
    found = _HOST.fullmatch(header.strip(" \t").lower())
    return found["name"].strip("[]").rstrip(".") if found else None


def _equal(given: str, expected: str) -> bool:
    # Hashed first: compare_digest tells the length of what it compares.
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, expected))
    return hmac.compare_digest(*digests)


def listen(host: str, port: int, token: str | None) -> tuple[socket.socket, Access]:
    """A listening socket and who may use it.

    Args:
        host: name or address; only loopback ones go without a token.
        port: 0 takes any free one.
        token: see ``Access``.
    Raises:
        UsageError: there is no token where one is needed, or it is a poor one.
        BadInputError: nothing can be served at this address; for instance, the port is taken.
    """
    if token is not None:
        check_token(token)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BadInputError(
            f"the monitor page cannot be served at {where}: {error.strerror}",
            hint="Give an address of this machine, for instance: --monitor 127.0.0.1:8080",
        ) from error
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    if not loopback and token is None:
        raise UsageError(
            f"the monitor page would be open to everyone who reaches {where}; off the loopback interface it "
            "needs a token",
            hint=_MAKE_TOKEN,
        )
    # Asyncio sends without delay only where the protocol is named; with delay an answer takes 40 ms more.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: what a client that reads slowly can have the system hold for it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInputError(
            f"the monitor page cannot be served at {where}: {error.strerror}",
            hint="Choose another address or port, for instance: --monitor 127.0.0.1:0 for any free port",
        ) from error
    own = socket.gethostname().lower()
    return listener, Access(host, loopback, token, frozenset({own, own.partition(".")[0], f"{own}.local"}))
