"""Who may look: the address, the token, and the names that a request may use."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.video.live.monitor.displays import MALFORMED_HOSTS
from vmkla.errors import BadInputError, UsageError
from vmkla.video.live.monitor.access import (
    Access,
    listen,
    parse_host,
    parse_monitor_address,
    read_token,
)

TOKEN = "0123456789abcdef"


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6; many containers do not."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


HAS_IPV6 = has_ipv6()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        (":8080", ("127.0.0.1", 8080)),
        ("8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_monitor_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:65536", "host:-1", "::1:80", "host:8o", "host:٣"]
)
def test_other_addresses_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        parse_monitor_address(text)


@pytest.mark.parametrize("host", ["0.0.0.0", *(["::"] if HAS_IPV6 else [])])
def test_off_the_loopback_interface_a_token_is_needed(host: str) -> None:
    with pytest.raises(UsageError, match="needs a token") as error:
        listen(host, 0, None)
    assert "openssl rand" in str(error.value)
    listener, access = listen(host, 0, TOKEN)
    listener.close()
    assert not access.loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8", *(["::1"] if HAS_IPV6 else [])])
def test_loopback_goes_without_a_token(host: str) -> None:
    listener, access = listen(host, 0, None)
    listener.close()
    assert access.loopback and access.token_allowed("") and access.cookie_allowed("")


def test_a_taken_port_is_named_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BadInputError, match=f"127.0.0.1:{port}.*in use") as error:
            listen("127.0.0.1", port, None)
    assert "127.0.0.1:0" in str(error.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_no_interface_here_is_named(host: str) -> None:
    with pytest.raises(BadInputError, match="cannot be served at"):
        listen(host, 0, TOKEN)


@pytest.mark.parametrize(
    "token", ["short", "", "with a space in the middle", "tökentökentökentöken", "x" * 257]
)
def test_poor_tokens_are_refused(token: str) -> None:
    with pytest.raises(UsageError, match="expected 16 to 256") as error:
        listen("127.0.0.1", 0, token)
    assert not token or token not in str(error.value)


def test_a_token_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o644)
    with pytest.raises(BadInputError, match="other users") as error:
        read_token(path)
    assert f"chmod 600 {path}" in str(error.value)
    path.chmod(0o600)
    assert read_token(path) == TOKEN
    path.write_text("short\n")
    with pytest.raises(BadInputError, match="expected 16 to 256"):
        read_token(path)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(BadInputError, match="visible ASCII"):
        read_token(path)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_token(tmp_path / "none")


def allowed(access: Access, header: str) -> bool:
    """Whether a request with this ``Host`` gets an answer."""
    host = parse_host(header)
    return host is not None and access.host_allowed(host)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("LocalHost:", "localhost"),
        ("cart-7.local.:80", "cart-7.local"),
        ("[::1]:80", "::1"),
        ("[FE80::1%eth0]", "fe80::1%eth0"),
        ("", ""),
    ],
)
def test_a_host_header_is_a_host_and_perhaps_a_port(header: str, host: str) -> None:
    assert parse_host(header) == host


@pytest.mark.parametrize("header", MALFORMED_HOSTS)
def test_other_host_headers_are_malformed(header: str) -> None:
    assert parse_host(header) is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LocalHost", "[::1]:80", "localhost."]
)
def test_own_names_are_allowed(host: str) -> None:
    assert allowed(Access("127.0.0.1", loopback=True), host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "cart",
        "[::2]:80",
        *MALFORMED_HOSTS,
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not allowed(Access("127.0.0.1", loopback=True, own_names=frozenset({"cart"})), host)


def test_off_loopback_addresses_and_own_names_are_allowed() -> None:
    access = Access("0.0.0.0", loopback=False, token=TOKEN, own_names=frozenset({"cart", "cart.local"}))
    for host in ("10.0.0.1:80", "cart:80", "CART.local", "localhost", "[fe80::1]:80"):
        assert allowed(access, host), host
    assert not allowed(access, "evil.example") and not allowed(access, "cart.evil.example")


def test_only_the_token_is_the_token() -> None:
    access = Access("0.0.0.0", loopback=False, token=TOKEN)
    assert access.token_allowed(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), access.cookie, "é", "\udc80"):
        assert not access.token_allowed(wrong)
        assert not access.cookie_allowed(wrong) or wrong == access.cookie
    assert access.cookie_allowed(access.cookie)
    other = Access("0.0.0.0", loopback=False, token=TOKEN + "0")
    assert not other.cookie_allowed(access.cookie)


def test_the_token_is_in_no_text_of_it() -> None:
    access = Access("0.0.0.0", loopback=False, token=TOKEN)
    assert TOKEN not in repr(access) and TOKEN not in access.cookie
