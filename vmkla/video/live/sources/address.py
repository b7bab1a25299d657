"""What a user's word for a live source means, and how it may be shown: without its passwords."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from vmkla.errors import UsageError

LiveKind = Literal["rtsp", "v4l2", "gst", "file", "pipe", "sample"]

_RTSP, _V4L2, _GST, _SAMPLE = ("rtsp://", "rtsps://"), "v4l2://", "gst:", "sample://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DEVICE = re.compile(r"/dev/video[0-9]+|/dev/v4l/.+")
_GST_USER = re.compile(r"(?<=//)[^@/\s\"']*@")
_GST_SECRET = re.compile(
    r"(?i)\b((?:[a-z-]*(?:pw|password|passphrase|token)|user-id)\s*=\s*)(\"[^\"]*\"|'[^']*'|\S+)"
)
_OPTIONS = {
    "v4l2": "size=1920x1080, fps=30, format=MJPG",
    "sample": "seed=7, size=480x360, fps=30, seconds=2",
}
_LONGEST_SAMPLE_S = 60.0


@dataclass(frozen=True)
class LiveAddress:
    """Where live pictures come from.

    Attributes:
        kind: what answers there.
        target: what is opened: a URL, a device, a pipeline, a file. It may hold a password, so it is for the
            opener alone; ``str()`` of an address and its ``shown`` are for everything else.
        shown: the same for people, without user names, passwords, queries and tokens.
        options: what followed a ``?`` (``v4l2``, ``sample``) or, for RTSP, a ``#``.
    """

    kind: LiveKind
    target: str = field(repr=False)
    shown: str
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.shown

    @property
    def live(self) -> bool:
        """A camera, which never ends; a file does."""
        return self.kind != "file"

    @property
    def size_wh(self) -> tuple[int, int] | None:
        """The size that was asked for, width and height, px."""
        text = self.options.get("size")
        if text is None:
            return None
        width, height = text.split("x")
        return int(width), int(height)

    def number(self, name: str, default: float) -> float:
        """An option's value."""
        return float(self.options.get(name, default))


def is_live_address(text: str) -> bool:
    """Whether only live mode can read it: an address or device of a camera, or the rendered stand-in."""
    return bool(text.startswith((*_RTSP, _V4L2, _GST, _SAMPLE)) or _DEVICE.fullmatch(text))


def parse_address(text: str) -> LiveAddress:
    """Read the address of a live source.

    Args:
        text: ``rtsp://`` or ``rtsps://`` with an optional ``#transport=udp``; ``v4l2:///dev/video0`` or the
            device alone, with optional ``?size=1920x1080&fps=30&format=MJPG``; ``gst:PIPELINE``; ``sample://``
            with optional ``?seed=7&size=480x360&fps=30&seconds=2``; else a video file, played at its own
            speed, or a named pipe.
    Raises:
        UsageError: it is no such address, or an option of it makes no sense.
    """
    if not text or "\0" in text:
        raise UsageError("the source's address is empty or holds a zero byte")
    if text.startswith(_RTSP):
        return _rtsp(text)
    if text.startswith(_GST):
        pipeline = text[len(_GST) :].strip()
        if not pipeline:
            raise UsageError(
                "gst: needs a pipeline after it", hint="For instance: gst:videotestsrc ! appsink"
            )
        return LiveAddress("gst", pipeline, _GST + redact(pipeline))
    if text.startswith(_SAMPLE):
        options = _options("sample", text)
        if urlsplit(text).netloc or urlsplit(text).path.strip("/"):
            raise UsageError(f"{text}: nothing but options may follow sample://", hint=_example("sample"))
        return LiveAddress("sample", text, text, options)
    if text.startswith(_V4L2) or _DEVICE.fullmatch(text):
        options = _options("v4l2", text) if text.startswith(_V4L2) else {}
        device = urlsplit(text).path if text.startswith(_V4L2) else text
        if not device.startswith("/"):
            raise UsageError(f"{text}: expected a device with its whole path", hint="v4l2:///dev/video0")
        return LiveAddress("v4l2", device, text, options)
    if _SCHEME.match(text):
        scheme = text.split("://")[0]
        raise UsageError(
            f"{scheme}:// is no live source",
            hint="Expected rtsp://, rtsps://, v4l2://, gst:PIPELINE, sample://, a file or a named pipe.",
        )
    return LiveAddress("pipe" if _is_pipe(text) else "file", text, text)


def redact(text: str) -> str:
    """Take user names and passwords out of a pipeline, or of a message that may quote an address."""
    return _GST_SECRET.sub(r"\1***", _GST_USER.sub("***@", text))


def _rtsp(text: str) -> LiveAddress:
    url, _, fragment = text.partition("#")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"the RTSP address cannot be read: {redact(str(error))}") from error
    if not host:
        raise UsageError("the RTSP address has no host", hint="Expected rtsp://HOST[:PORT]/PATH")
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    if set(options) - {"transport"} or options.get("transport", "tcp") not in ("tcp", "udp"):
        raise UsageError(
            "after the # of an RTSP address only transport=tcp or transport=udp may stand (it is not sent)"
        )
    # Some cameras want the password inside the path, as /user=...&password=..., so no assignment is shown.
    path = re.sub(r"[^/]*=[^/]*", "***", parts.path)
    place = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{place}{f':{port}' if port else ''}{path}{'?***' if parts.query else ''}"
    return LiveAddress("rtsp", url, shown, options)


def _options(kind: str, text: str) -> dict[str, str]:
    options = dict(parse_qsl(urlsplit(text).query, keep_blank_values=True))
    known = {pair.split("=")[0] for pair in _OPTIONS[kind].split(", ")}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"{text}: unknown option {unknown[0]!r}", hint=_example(kind))
    for name, value in options.items():
        if not _sensible(name, value):
            raise UsageError(f"{text}: {name}={value} makes no sense", hint=_example(kind))
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
