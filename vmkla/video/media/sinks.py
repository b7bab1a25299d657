"""Write videos with the source's time stamps and JSON lines, with reserved disk space to close them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vmkla.cpus import codec_threads
from vmkla.files import FULL, create_file, unfinished_path
from vmkla.safe_text import printable_json
from vmkla.video.media.errors import output_errors
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.h264 import H264Encoder

_RESERVE_BYTES = 4 << 20  # the index of an MP4 takes about 16 bytes a frame: an hour at 30 fps is 1.7 MB
_PRESET, _CRF = "superfast", "18"
"""1.7 ms of CPU time at 480x360; veryfast takes 3.0 ms for the same quality in two thirds of the bytes."""
_THREADS_FROM_PX = 1280 * 720


class DiskReserve:
    """Reserves disk space, so that the open outputs can be closed on a full disk.

    Args:
        path: file that takes the space.
    Raises:
        OSError: there is too little space, or the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open(create_file(path), "wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
                except OSError as error:
                    if error.errno in (*FULL, errno.EFBIG):
                        raise
                    file.write(bytes(_RESERVE_BYTES))  # a file system that cannot allocate ahead
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def release(self) -> bool:
        """Free the space; return False when that was done before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class _OutputFile:
    """A file for FFmpeg to write to, which uses the reserve when the disk is full."""

    def __init__(self, path: Path, reserve: DiskReserve | None) -> None:
        self._fd = create_file(path)
        self._reserve = reserve
        self.full: OSError | None = None  # error for which the reserve was used
        self.error: OSError | None = None  # error after which nothing can be written

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                if error.errno not in FULL or self._reserve is None or not self._reserve.release():
                    self.error = error
                    raise
                self.full = error
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        os.close(self._fd)


class VideoSink:
    """Writes H.264 (4:2:0, limited range) into an MP4 that plays everywhere.

    Each frame keeps its own time stamp in the source's time base. An odd width or height is rounded up by
    repeating the last column or row, since 4:2:0 has no odd sizes. The file has a temporary name until
    ``close``.

    Args:
        path: final name of the file.
        traits: time base and pixel shape of the clip.
        frame_hw: height and width of every frame, px.
        reserve: space to use when the disk is full.
    Raises:
        BadInputError: the file cannot be created.
        MissingDependencyError: this FFmpeg has no libx264.
    """

    def __init__(
        self, path: Path, traits: VideoTraits, frame_hw: tuple[int, int], reserve: DiskReserve | None = None
    ) -> None:
        self.path = path
        self.partial = unfinished_path(path)
        self.written = 0
        self._closed = self._broken = False
        self.frame_hw, self.traits = frame_hw, traits
        threads = codec_threads(2 if frame_hw[0] * frame_hw[1] >= _THREADS_FROM_PX else 1)
        self._encoder = H264Encoder(traits, frame_hw, preset=_PRESET, crf=_CRF, threads=threads)
        self.size_hw = self._encoder.size_hw
        with output_errors(path):
            self._file = _OutputFile(self.partial, reserve)
        try:
            # The track's clock counts the frames; the movie's clock places the first one.
            ticks = str(traits.time_base.denominator)
            timescales = {"video_track_timescale": ticks, "movie_timescale": ticks}
            self._container = av.open(self._file, "w", format="mp4", options=timescales)
            self._encoder.add_to(self._container)
            with self._writing():
                self._container.start_encoding()
        except BaseException:
            self._file.close()
            self.partial.unlink(missing_ok=True)
            raise

    def write(self, frame_rgb: npt.NDArray[np.uint8], pts: int) -> None:
        """Encode one frame.

        Args:
            frame_rgb: (H, W, 3) uint8 of the size given at the start.
            pts: presentation time, ticks of the time base, greater than the last one.
        Raises:
            BadInputError: the disk is full. The file can still be closed.
        """
        if self._file.full is not None:
            with output_errors(self.path):
                raise self._file.full
        with self._writing():
            self._mux(self._encoder.convert(frame_rgb, pts))
        self.written += 1

    def close(self, *, keep: bool = True) -> None:
        """Finish the file and give it its final name, or remove it. A second call does nothing.

        Raises:
            BadInputError: the file cannot be finished; it is removed.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with self._writing():
                try:
                    if self.written and not self._broken:
                        self._mux(None)
                finally:
                    self._container.close()
        finally:
            self._file.close()
            keep = keep and self.written > 0 and not self._broken
            if not keep:
                self.partial.unlink(missing_ok=True)
        if keep:
            with output_errors(self.path):
                os.replace(self.partial, self.path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Guard FFmpeg's writing: after an error it must not be called again."""
        size = f"{self.size_hw[1]}x{self.size_hw[0]}"
        with output_errors(self.path, f"H.264 of {size} in MP4"):
            try:
                yield
            except Exception as error:
                self._broken = True
                cause = self._file.error
                if cause is None or cause is error:
                    raise
                raise cause from error  # FFmpeg passes on only the first error of a file with its cause

    def _mux(self, frame: Any) -> None:
        for packet in self._encoder.packets(frame):
            self._container.mux(packet)


class JsonlSink:
    """Writes one JSON object per line, unbuffered, under a temporary name.

    Args:
        path: final name of the file.
    Raises:
        BadInputError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = unfinished_path(path)
        self.rows = 0
        with output_errors(path):
            self._file = open(create_file(self.partial), "wb", buffering=0)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row completely or not at all.

        Raises:
            BadInputError: the disk is full.
        """
        line = to_json(row) + b"\n"
        start = self._file.tell()
        with output_errors(self.path):
            try:
                view = memoryview(line)
                while view:
                    view = view[self._file.write(view) or 0 :]
            except OSError:
                self._file.truncate(start)
                raise
        self.rows += 1

    def close(self, *, keep: bool = True) -> None:
        """Give the file its final name, or remove it. A second call does nothing."""
        if self._file.closed:
            return
        self._file.close()
        if keep:
            with output_errors(self.path):
                os.replace(self.partial, self.path)
        else:
            self.partial.unlink(missing_ok=True)


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """Return JSON in UTF-8; invalid Unicode and control sequences of terminals are escaped."""
    return printable_json(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)).encode()
