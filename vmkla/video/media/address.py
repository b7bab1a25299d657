"""Parse the address of a live source, and show it without its passwords."""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from vmkla.errors import UsageError
from vmkla.names import Names, digest_or_none, given_names, pseudonyms
from vmkla.safe_text import redact

LiveKind = Literal["rtsp", "v4l2", "gst", "file", "pipe", "sample"]

_RTSP, _V4L2, _GST, _SAMPLE = ("rtsp://", "rtsps://"), "v4l2://", "gst:", "sample://"
_DEVICE = re.compile(r"/dev/video[0-9]+|/dev/v4l/.+")
_ATTEMPT = re.compile(r"(?i)\s*(?:[a-z][a-z0-9+.-]+:/|(?:rtsps?|https?|rtmps?|srt|udp|tcp|mms):)")
_HOST = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?)\]|(?P<name>[\w.~-]+)")
_ESCAPES = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ELEMENT = re.compile(r"[A-Za-z][\w-]*(?:/[\w-]+)?")
_SECRET_LETTERS = 4
_OPTIONS = {
    "v4l2": "size=1920x1080, fps=30, format=MJPG",
    "sample": "seed=8, size=480x360, fps=30, seconds=2",
}
_LONGEST_SAMPLE_S = 60.0


@dataclass(frozen=True)
class LiveAddress:
    """The address of a live source.

    Attributes:
        kind: kind of source.
        target: URL, device, pipeline or file to open. It may hold a password, so use it only for opening, and
            ``shown`` or ``str()`` for everything else.
        shown: the target without user names, passwords, queries and tokens.
        options: options after a ``?`` (``v4l2``, ``sample``) or, for RTSP, after a ``#``.
        secrets: parts of the target that no message may contain, longest first.
    """

    kind: LiveKind
    target: str = field(repr=False)
    shown: str
    options: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.shown

    @property
    def live(self) -> bool:
        """Whether the source never ends; only a file does."""
        return self.kind != "file"

    @property
    def size_wh(self) -> tuple[int, int] | None:
        """Requested width and height, px; None without a request."""
        text = self.options.get("size")
        if text is None:
            return None
        width, height = text.split("x")
        return int(width), int(height)

    @property
    def name(self) -> str:
        """Name for logs and reports: a file without its folder, everything else as shown."""
        return Path(self.shown).name if self.kind in ("file", "pipe") else self.shown

    @property
    def names(self) -> tuple[str, ...]:
        """Words of the address that the monitor page must not show."""
        if self.kind == "sample":
            return ()
        words = re.split(r"[^\w-]+", f"{self.shown} {self.target}")
        return (self.shown, self.target, *(word for word in words if len(word) >= _SECRET_LETTERS))

    def redact(self, text: str) -> str:
        """Remove this address and its secrets from a text, and what looks like secrets of others."""
        if self.kind in ("file", "pipe"):
            text = Names(dict.fromkeys((self.target, os.path.abspath(self.target)), self.name)).hide(text)
        elif self.kind in ("rtsp", "gst"):
            text = text.replace(self.target, self.shown)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return redact(text)

    def number(self, name: str, default: float) -> float:
        """Return the value of an option."""
        return float(self.options.get(name, default))


def is_live_address(text: str) -> bool:
    """Check for what only live mode can read: an address or device of a camera, or the rendered clip."""
    return bool(text.lower().startswith((*_RTSP, _V4L2, _GST, _SAMPLE)) or _DEVICE.fullmatch(text))


def is_address(text: str) -> bool:
    """Check whether an address is meant: a text with a scheme, misspelt or not, that is not a file."""
    return bool(_ATTEMPT.match(text)) and not os.path.exists(text)


def parse_address(text: str) -> LiveAddress:
    """Parse the address of a live source.

    Args:
        text: ``rtsp://`` or ``rtsps://`` with an optional ``#transport=udp``; ``v4l2:///dev/video0`` or the
            device alone, with optional ``?size=1920x1080&fps=30&format=MJPG``; ``gst:PIPELINE``; ``sample://``
            with optional ``?seed=8&size=480x360&fps=30&seconds=2``; else a video file, played at its own
            speed, or a named pipe.
    Raises:
        UsageError: the text is not such an address, or an option is out of range. The message quotes no
            password.
    """
    if not text or "\0" in text:
        raise UsageError("the source's address is empty or holds a zero byte")
    scheme = text.split(":")[0].lower()
    if is_live_address(text) and not _DEVICE.fullmatch(text):
        text = scheme + text[len(scheme) :]
    if text.startswith(_RTSP):
        return _rtsp(text)
    if text.startswith(_GST):
        pipeline = text[len(_GST) :].strip()
        if not pipeline:
            raise UsageError(
                "gst: needs a pipeline after it", hint="For instance: gst:videotestsrc ! appsink"
            )
        return LiveAddress(
            "gst", pipeline, _GST + _elements(pipeline), secrets=_secrets_of_pipeline(pipeline)
        )
    if text.startswith(_SAMPLE):
        options = _options("sample", text)
        if urlsplit(text).netloc or urlsplit(text).path.strip("/"):
            raise UsageError(f"{text}: only options may follow sample://", hint=_example("sample"))
        return LiveAddress("sample", text, text, options)
    if text.startswith(_V4L2) or _DEVICE.fullmatch(text):
        options = _options("v4l2", text) if text.startswith(_V4L2) else {}
        device = urlsplit(text).path if text.startswith(_V4L2) else text
        if not device.startswith("/"):
            raise UsageError(f"{text}: expected a device with its full path", hint="v4l2:///dev/video0")
        return LiveAddress("v4l2", device, text, options)
    if is_address(text):
        raise UsageError(
            f"{scheme.strip()}: is not a live source",
            hint="Expected rtsp://, rtsps://, v4l2://, gst:PIPELINE, sample://, a file or a named pipe.",
        )
    return LiveAddress("pipe" if _is_pipe(text) else "file", text, text)


def anonymous(address: LiveAddress) -> tuple[LiveAddress, Names]:
    """Return the address without names of files and folders, and the names to hide in messages.

    A file is named by the first digits of its sha256, a pipe and a pipeline by their kind. A camera's address
    stays, since it names a device.
    """
    if address.kind not in ("file", "pipe", "gst"):
        return address, Names({})
    label = {"pipe": "a named pipe", "gst": "gst:***"}.get(address.kind, "")
    label = label or pseudonyms([digest_or_none(Path(address.target))])[0]
    return replace(address, shown=label), given_names([address.target, address.shown], label)


def _rtsp(text: str) -> LiveAddress:
    scheme, _, rest = text.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    user, at, place = authority.rpartition("@")
    match = re.fullmatch(r"(?P<host>.*?)(?::(?P<port>[0-9]*))?", place, re.DOTALL)
    host = _HOST.fullmatch(match["host"]) if match else None
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise _unreadable("it holds a space or a control character")
    if "@" in after:
        raise _unreadable("there is an @ behind the host")
    if _ESCAPES.search(user):
        raise _unreadable("there is a % without two hexadecimal digits in its user name or password")
    if match is None or host is None:
        raise _unreadable("it has no host" if not place else "what should be host and port is neither")
    port = match["port"]
    if port is not None and not (port.isascii() and 0 < len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise _unreadable("its port is not a number from 1 to 65535")
    target, _, fragment = text.partition("#")
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    if set(options) - {"transport"} or options.get("transport", "tcp") not in ("tcp", "udp"):
        raise UsageError(
            "after the # of an RTSP address only transport=tcp or transport=udp may stand (it is not sent)"
        )
    path, _, query = after.partition("#")[0].partition("?")
    # Some cameras want the password inside the path, as /user=...&password=..., so no assignment is shown.
    shown_path = re.sub(r"[^/]*=[^/]*", "***", path)
    shown = f"{scheme}://{place}{shown_path}{'?***' if query else ''}"
    named = [pair for piece in path.split("/") if "=" in piece for pair in (piece, *piece.split("&"))]
    values = [pair.partition("=")[2] for pair in (*query.split("&"), *named)]
    secrets = _secrets(f"{user}{at}" if user else "", *user.split(":", 1), query, *named, *values)
    return LiveAddress("rtsp", target, shown, options, secrets)


def _unreadable(what: str) -> UsageError:
    return UsageError(
        f"the RTSP address cannot be read: {what}. It is not shown here, since it may hold a password",
        hint="Expected rtsp://[USER:PASSWORD@]HOST[:PORT][/PATH]. In user name and password write # as %23, "
        "/ as %2F, ? as %3F, @ as %40, : as %3A, [ as %5B, ] as %5D, % as %25 and a space as %20; "
        "in the path write @ as %40.",
    )


def _secrets(*texts: str) -> tuple[str, ...]:
    """Return the texts, as they are and decoded, that are too long to be part of another word."""
    both = {each for text in texts for each in (text, unquote(text))}
    return tuple(sorted((text for text in both if len(text) >= _SECRET_LETTERS), key=len, reverse=True))


def _pieces(pipeline: str) -> list[str]:
    """Split a pipeline into words without quotes; empty when that is not possible."""
    try:
        return shlex.split(re.sub(r"\s*=\s*", "=", pipeline))
    except ValueError:
        return []


def _elements(pipeline: str) -> str:
    """Return the names of a pipeline's elements: their properties may hold passwords under any name."""
    pieces = _pieces(pipeline)
    begins = [piece for before, piece in zip(["!", *pieces], pieces, strict=False) if before == "!"]
    names = [match[0] if (match := _ELEMENT.match(piece)) else "***" for piece in begins if piece != "!"]
    return " ! ".join(names) if names else "***"


def _secrets_of_pipeline(pipeline: str) -> tuple[str, ...]:
    values = [piece.partition("=")[2] for piece in _pieces(pipeline)]
    users = [match[1] for value in values if (match := re.search(r"://(.*)@", value))]
    return _secrets(
        *(value for value in values if not value.isdecimal()), *users, *":".join(users).split(":")
    )


def _options(kind: str, text: str) -> dict[str, str]:
    options = dict(parse_qsl(urlsplit(text).query, keep_blank_values=True))
    known = {pair.split("=")[0] for pair in _OPTIONS[kind].split(", ")}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"{text}: unknown option {unknown[0]!r}", hint=_example(kind))
    for name, value in options.items():
        if not _sensible(name, value):
            raise UsageError(f"{text}: {name}={value} is out of range", hint=_example(kind))
    return options


def _sensible(name: str, value: str) -> bool:
    if name == "size":
        return bool(re.fullmatch(r"[1-9][0-9]{1,3}x[1-9][0-9]{1,3}", value))
    if name == "format":
        return bool(re.fullmatch(r"[A-Za-z0-9]{4}", value))
    if name == "seed":
        return bool(re.fullmatch(r"[0-9]{1,9}", value))
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", value):
        return False
    return 0 < float(value) <= (_LONGEST_SAMPLE_S if name == "seconds" else 1000)


def _example(kind: str) -> str:
    return f"Options come after a ?, joined by &: {_OPTIONS[kind]}"


def _is_pipe(text: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(text).stat().st_mode)
    except OSError:
        return False
