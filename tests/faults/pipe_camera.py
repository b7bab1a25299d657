"""A camera that writes MPEG-TS into a named pipe, and can be paused, resized, unplugged and corrupted."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from vmkla.video.media.clip import render_clip

Image = npt.NDArray[np.uint8]

_OPEN_RETRY_S = 0.02
_TICKS = 90_000  # MPEG-TS's clock, Hz


class PipeCamera:
    """Writes H.264 in MPEG-TS into a named pipe, frame by frame, from a thread of its own.

    Args:
        path: where the pipe is made.
        fps: pictures per second.
        gop: pictures from one that stands alone to the next.
        seed: of the rendered pictures.
    """

    def __init__(self, path: Path, *, fps: int = 30, gop: int = 10, seed: int = 4) -> None:
        os.mkfifo(path)
        self.path = path
        self._fps, self._gop, self._seed = fps, gop, seed
        self._size_hw = (0, 0)
        self._pictures: list[Image] = []
        self._paused = threading.Event()
        self._hung_up = threading.Event()
        self._spoil = 0
        self._stop = threading.Event()
        self._rng = np.random.default_rng(seed)
        self._thread = threading.Thread(target=self._write, name="pipe-camera", daemon=True)
        self.written = 0
        self.set_size(96, 128)

    def start(self) -> PipeCamera:
        """Start to write as soon as there is a reader."""
        self._thread.start()
        return self

    def set_size(self, height: int, width: int, count: int = 30) -> float:
        """Continue with frames of another size in the same stream; return the time."""
        pictures = [rgb for rgb, _ in render_clip(self._seed, height, width, count)]
        self._pictures = pictures
        self._size_hw = (height, width)
        return time.monotonic()

    def pause(self) -> float:
        """Stop writing and keep the pipe open, as when a cable is pulled; return the time."""
        self._paused.set()
        return time.monotonic()

    def go_on(self) -> float:
        """Write again; return the time."""
        self._paused.clear()
        return time.monotonic()

    def hang_up(self) -> float:
        """Close the pipe, as when a camera is switched off; return the time."""
        self._hung_up.set()
        return time.monotonic()

    def come_back(self) -> float:
        """Open the pipe again; return the time."""
        self._hung_up.clear()
        return time.monotonic()

    def spoil(self, pictures: int) -> float:
        """Overwrite bytes in this number of the next frames; return the time."""
        self._spoil = pictures
        return time.monotonic()

    def close(self) -> None:
        """Stop and close the pipe."""
        self._stop.set()
        self._thread.join(5)

    def _write(self) -> None:
        while not self._stop.is_set():
            if self._hung_up.is_set():
                time.sleep(_OPEN_RETRY_S)
                continue
            descriptor = self._open()
            if descriptor is None:
                continue
            try:
                for data in self._stream():
                    _write_all(descriptor, data, self._stop)
            except BrokenPipeError:
                continue  # the reader went away; it will open the pipe again
            finally:
                os.close(descriptor)

    def _open(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            time.sleep(_OPEN_RETRY_S)
            return None

    def _stream(self) -> Iterator[bytes]:
        """Yield pieces of the stream, each when it is due, until the camera hangs up."""
        begun_s = time.monotonic()
        number = 0
        while not self._hung_up.is_set() and not self._stop.is_set():
            size_hw, pictures = self._size_hw, self._pictures
            sink = io.BytesIO()
            with av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as container:
                stream = container.add_stream("libx264", rate=self._fps)
                stream.height, stream.width = size_hw
                stream.pix_fmt = "yuv420p"
                stream.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency"}
                stream.codec_context.gop_size = self._gop
                while size_hw == self._size_hw and not self._hung_up.is_set() and not self._stop.is_set():
                    begun_s += self._wait(begun_s + number / self._fps)
                    frame = av.VideoFrame.from_ndarray(pictures[number % len(pictures)], format="rgb24")
                    frame.pts = number * _TICKS // self._fps
                    frame.time_base = Fraction(1, _TICKS)
                    for packet in stream.encode(frame):
                        container.mux(packet)
                    data = sink.getvalue()
                    sink.seek(0)
                    sink.truncate()
                    yield self._spoilt(data)
                    number += 1
                    self.written += 1

    def _wait(self, due_s: float) -> float:
        """Wait until a frame is due; return the seconds that the stream was paused meanwhile."""
        paused_s = 0.0
        while self._paused.is_set() and not self._stop.is_set():
            time.sleep(_OPEN_RETRY_S)
            paused_s = max(0.0, time.monotonic() - due_s)
        time.sleep(max(0.0, due_s + paused_s - time.monotonic()))
        return paused_s

    def _spoilt(self, data: bytes) -> bytes:
        if not self._spoil or len(data) < 400:
            return data
        self._spoil -= 1
        spoilt = bytearray(data)
        # The payload of each packet of 188 bytes; its head stays, or the demuxer would see nothing wrong.
        for start in range(188, len(spoilt) - 187, 188):
            for place in self._rng.integers(60, 188, 6):
                spoilt[start + int(place)] = int(self._rng.integers(256))
        return bytes(spoilt)


def _write_all(descriptor: int, data: bytes, stop: threading.Event) -> None:
    """Write to a pipe that may be full, until ``stop`` is set."""
    view = memoryview(data)
    while view and not stop.is_set():
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            time.sleep(_OPEN_RETRY_S)
