"""Streams that are read as they come: RTSP cameras and named pipes."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import av
import av.error

from vmkla.cpus import codec_threads
from vmkla.errors import BadInputError
from vmkla.video.live.sources.cameras import CameraContext, CameraError, Shot, stream_facts
from vmkla.video.media.address import LiveAddress
from vmkla.video.media.errors import MEDIA_ERRORS, reason
from vmkla.video.media.rgb import RgbConverter
from vmkla.video.media.streams import FORMATS, LENIENT_METADATA
from vmkla.video.media.tracks import choose_track, list_tracks

_POLL_S = 0.1
_DRIFT = 1e-3  # largest drift between the camera's clock and this one, seconds per second
# Low delay: the demuxer buffers no packets and probes little of the stream.
_LOW_DELAY = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "200000", "analyzeduration": "200000"}
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto"  # a camera cannot redirect the reader to a file


class PipeFile:
    """A named pipe as a file for PyAV, which can be read before there is a writer, and stopped.

    Args:
        path: path of the pipe.
        stop: event that ends a read, which then looks like the end of the file.
    Raises:
        CameraError: the pipe does not exist.
    """

    def __init__(self, path: str, stop: Event) -> None:
        self._stop = stop
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CameraError(f"{path} cannot be read: {error.strerror}", cause="the pipe is gone") from error
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes once there are any; none after the writer has closed the pipe."""
        while not self._stop.is_set():
            if self._poll.poll(_POLL_S * 1000):
                try:
                    return os.read(self._descriptor, size if size > 0 else 1 << 16)
                except BlockingIOError:  # a second reader took it
                    continue
        return b""

    def close(self) -> None:
        """Close the pipe."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Backlog:
    """Measures how far the frames of a stream have fallen behind the fastest of them.

    The camera's clock is not this machine's, so the delay itself is unknown, but its growth is known: bytes
    that wait in a socket after a stall, or a decoder that is too slow.
    """

    def __init__(self) -> None:
        self._least_s: float | None = None
        self._last_s = 0.0

    def behind_s(self, position_s: float, arrived_s: float) -> float:
        """Return the delay of a frame against the fastest one, seconds.

        Args:
            position_s: time of the frame by the camera's clock, seconds.
            arrived_s: time of arrival by this machine's clock, seconds.
        """
        lag_s = arrived_s - position_s
        if self._least_s is None or abs(lag_s - self._least_s) > 60:  # the camera set its clock
            self._least_s = lag_s
        else:
            self._least_s = min(lag_s, self._least_s + _DRIFT * (arrived_s - self._last_s))
        self._last_s = arrived_s
        return lag_s - self._least_s


class StreamCamera:
    """A stream that PyAV reads as it comes; each frame is returned as soon as it is decoded.

    Args:
        address: address of kind ``rtsp`` or ``pipe``.
        context: what the source needs from its owner.
    """

    def __init__(self, address: LiveAddress, context: CameraContext) -> None:
        self._address = address
        self._context = context
        self._container: Any = None
        self._pipe: PipeFile | None = None
        self._facts: dict[str, Any] = {}

    def prepare(self) -> None:
        """Check that a pipe is a pipe; a camera may appear later."""
        if self._address.kind != "pipe":
            return
        try:
            is_pipe = stat.S_ISFIFO(os.stat(self._address.target).st_mode)
        except OSError as error:
            raise BadInputError(f"{self._address} cannot be read: {error.strerror or error}") from error
        if not is_pipe:
            raise BadInputError(f"{self._address} is not a named pipe any more")

    def shots(self) -> Iterator[Shot]:
        """Yield frames as they come; see ``Camera.shots``."""
        try:
            yield from self._shots()
        except av.error.FFmpegError as error:
            # FFmpeg's error text quotes the address with its password; its reason does not.
            cause = reason(error)
            raise CameraError(f"{self._address}: {cause}", cause=cause) from None

    def close(self) -> None:
        """Close the stream."""
        container, self._container = self._container, None
        pipe, self._pipe = self._pipe, None
        try:
            if container is not None:
                container.close()
        finally:
            if pipe is not None:
                pipe.close()

    def describe(self) -> dict[str, Any]:
        """Describe codec, size and rate."""
        return dict(self._facts)

    def _shots(self) -> Iterator[Shot]:
        self._container = self._open()
        tracks = list_tracks(self._container)
        shown, container_format = self._address.shown, self._container.format.name
        stream = choose_track(tracks, shown, container_format=container_format).stream
        # Frame threads would each delay the video by a frame.
        stream.thread_type = "SLICE"
        stream.codec_context.thread_count = codec_threads(2)
        self._facts = stream_facts(stream)
        to_rgb = RgbConverter()
        backlog = Backlog()
        shown_s = time.monotonic()
        for packet in self._container.demux(stream):
            if self._context.stop.is_set():
                return
            for decoded in self._decode(packet):
                captured_s = shown_s = time.monotonic()
                if self._is_behind(decoded, backlog, captured_s):
                    self._context.drop("behind", "a frame came too late to be shown")
                    continue
                yield Shot(captured_s, to_rgb(decoded)[0], bool(decoded.is_corrupt))
            if time.monotonic() - shown_s > self._context.limits.open_s:
                raise CameraError(
                    f"{self._address}: packets come, but none can be decoded",
                    cause="no packet can be decoded",
                )

    def _open(self) -> Any:
        limits = self._context.limits
        if self._address.kind == "pipe":
            self._pipe = PipeFile(self._address.target, self._context.stop)
            # The format list keeps a playlist in the pipe from making FFmpeg open files and addresses.
            options = {**_LOW_DELAY, "format_whitelist": FORMATS, "protocol_whitelist": "file"}
            return av.open(self._pipe, options=options, **LENIENT_METADATA)
        options = {
            **_LOW_DELAY,
            "rtsp_transport": self._address.options.get("transport", "tcp"),
            "allowed_media_types": "video",
            "max_delay": "100000",  # UDP: wait at most 0.1 s for a packet that came out of order
            "timeout": str(round(limits.read_s * 1e6)),
            "protocol_whitelist": _PROTOCOLS,
            "format_whitelist": "rtsp,rtp,sdp,mpegts",
        }
        timeouts_s = (limits.open_s, limits.read_s)
        return av.open(self._address.target, options=options, timeout=timeouts_s, **LENIENT_METADATA)

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except MEDIA_ERRORS as error:
            self._context.drop("undecodable", reason(error))
            return []

    def _is_behind(self, decoded: Any, backlog: Backlog, now_s: float) -> bool:
        # A pipe has no clock: its writer may be slow.
        if self._address.kind != "rtsp" or decoded.pts is None or decoded.time_base is None:
            return False
        position_s = float(decoded.pts * decoded.time_base)
        return backlog.behind_s(position_s, now_s) > self._context.limits.behind_s
