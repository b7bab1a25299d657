"""Access to the monitor page: its address, its token and the host names it accepts."""

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
    """Parse ``HOST:PORT``, ``:PORT`` or ``PORT``; an IPv6 address stands in brackets.

    Returns:
        Host and port; without a host, the loopback interface.
    Raises:
        UsageError: the text has another form.
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
    """Read the token from a file that nobody else may read.

    Raises:
        BadInputError: the file cannot be read, others can read it, or it holds no valid token.
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
    """Check that a token is hard to guess and fits into a header.

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
    """Decides who gets an answer.

    Attributes:
        host: name or address at which the page is served, as given.
        loopback: whether only programs on this machine can reach it.
        token: secret that readers must give; None lets everyone in who reaches the page.
        own_names: names of this machine, in lower case.
    """

    host: str
    loopback: bool
    token: str | None = field(default=None, repr=False)
    own_names: frozenset[str] = frozenset()

    def host_allowed(self, name: str) -> bool:
        """Check whether a host (see ``parse_host``) is a name of this monitor.

        A foreign page can make its own domain name resolve to this machine to look like the same origin; it
        cannot do so with an IP address or with a name of this machine.
        """
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            own = name in ("localhost", self.host.lower())
            return own or (not self.loopback and name in self.own_names)
        return address.is_loopback or not self.loopback

    def token_allowed(self, token: str) -> bool:
        """Check a token, in equal time for every wrong one."""
        return self.token is None or _equal(token, self.token)

    def cookie_allowed(self, cookie: str) -> bool:
        """Check a cookie, in equal time for every wrong one."""
        return self.token is None or _equal(cookie, self.cookie)

    @property
    def cookie(self) -> str:
        """Cookie that a browser keeps in place of the token, which cannot be derived from it."""
        return hmac.new(
            (self.token or "").encode(), b"cookie of the vmkla monitor", hashlib.sha256
        ).hexdigest()


def parse_host(header: str) -> str | None:
    """Return the host of a ``Host`` header without its port, in lower case; None when it is malformed."""
    found = _HOST.fullmatch(header.strip(" \t").lower())
    return found["name"].strip("[]").rstrip(".") if found else None


def _equal(given: str, expected: str) -> bool:
    # Hashed first, since compare_digest reveals the length of what it compares.
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, expected))
    return hmac.compare_digest(*digests)


def listen(host: str, port: int, token: str | None) -> tuple[socket.socket, Access]:
    """Open a listening socket, and return it with its access rules.

    Args:
        host: name or address; only loopback ones need no token.
        port: TCP port; 0 takes any free one.
        token: secret that readers must give.
    Raises:
        UsageError: a token is missing where one is needed, or is too weak.
        BadInputError: the address cannot be used, for instance because the port is taken.
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
    # Asyncio disables Nagle's delay, 40 ms an answer, only where the protocol is named.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by connections: limits the memory that a slow client can bind.
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
