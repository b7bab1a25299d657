"""Write one stream of a recording as files of a few seconds, each playable at any moment.

A file is an MP4 in which every frame is a fragment of its own, so it can be read up to the last complete
frame whenever writing ends. When it is closed, a table of all frames is appended and its head is changed to
point there, which makes it an ordinary MP4.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.segment.preprocess import Rect
from vmkla.video.hiding import hide
from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.recording.disk_guard import RecordingStoppedError
from vmkla.video.live.recording.disk_writer import Block, DiskWriter, Row, SegmentFile
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.h264 import H264Encoder

STREAMS = ("raw", "overlay")
TRAITS = VideoTraits(time_base=Fraction(1, 1_000_000), frame_rate=Fraction(30))
"""Traits of the files: time stamps in microseconds; the frame rate is only a hint for players."""
_LAYOUT = {
    "movflags": "hybrid_fragmented+empty_moov+default_base_moof+frag_every_frame",
    "video_track_timescale": str(TRAITS.time_base.denominator),
    "movie_timescale": str(TRAITS.time_base.denominator),
    "flush_packets": "1",
}
_LARGE_FROM_PX = 1280 * 720
_NAME = re.compile(rf"({'|'.join(STREAMS)})-(\d{{6,}})\.mp4")


def last_number(folder: Path) -> int:
    """Return the highest number of a segment in a folder, 0 without any."""
    found = [match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return max((int(match[2]) for match in found), default=0)


class SegmentGrid:
    """Times at which both streams start a new segment, so that equal numbers cover the same time.

    Args:
        segment_s: length of a segment, seconds; the first starts with the first frame of either stream.
    """

    def __init__(self, segment_s: float) -> None:
        self.segment_s = segment_s
        self._start_s: float | None = None
        self._lock = threading.Lock()

    def cell(self, captured_s: float) -> int:
        """Return the number of the segment for a capture time, from 0."""
        with self._lock:
            if self._start_s is None:
                self._start_s = captured_s
            return max(0, int((captured_s - self._start_s) // self.segment_s))


class _Collected:
    """A file for FFmpeg to write to, which collects the blocks in memory."""

    def __init__(self) -> None:
        self._blocks: list[tuple[int, bytearray]] = []
        self._at = self._end = 0

    def write(self, data: bytes) -> int:
        if self._blocks and self._blocks[-1][0] + len(self._blocks[-1][1]) == self._at:
            self._blocks[-1][1].extend(data)
        else:
            self._blocks.append((self._at, bytearray(data)))
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def take(self) -> list[Block]:
        blocks, self._blocks = self._blocks, []
        return [(at, bytes(data)) for at, data in blocks]


class SegmentMp4:
    """Encodes frames of one size into the bytes of one file; see this module's docstring.

    Args:
        frame_hw: height and width of every frame, px.
    Raises:
        MissingDependencyError: this FFmpeg has no libx264.
    """

    def __init__(self, frame_hw: tuple[int, int]) -> None:
        large = frame_hw[0] * frame_hw[1] >= _LARGE_FROM_PX
        self._encoder = H264Encoder(
            TRAITS,
            frame_hw,
            preset="ultrafast" if large else "superfast",
            crf="18",
            tune="zerolatency",  # a frame leaves the encoder at once, so a power cut takes none from there
        )
        self._file = _Collected()
        self._container: Any = av.open(self._file, "w", format="mp4", options=_LAYOUT)
        self._encoder.add_to(self._container)
        self._container.start_encoding()

    def add(self, frame_rgb: npt.NDArray[np.uint8], pts: int) -> list[Block]:
        """Encode a frame, and return the blocks that complete the file up to the frame before."""
        self._mux(self._encoder.convert(frame_rgb, pts))
        return self._file.take()

    def close(self) -> list[Block]:
        """Return the remaining blocks, in the order in which they must reach the disk."""
        self._mux(None)
        self._container.close()
        return self._file.take()

    def _mux(self, frame: Any) -> None:
        for packet in self._encoder.packets(frame):
            self._container.mux(packet)


@dataclass
class StreamCounts:
    """Counts of a stream's frames.

    Attributes:
        written: number of frames given to a file.
        missed: number of frames that were overwritten or damaged in shared memory before they could be read,
            or that came while the process was being restarted.
        repeated: number of frames not later than the one before, which are not written.
        segments: number of files started.
        last_sequence: number of the last frame written, 0 before the first.
        reference_hw: height and width of the first frame, px, to which rectangles to hide refer.
    """

    written: int = 0
    missed: int = 0
    repeated: int = 0
    segments: int = 0
    last_sequence: int = 0
    reference_hw: tuple[int, int] | None = None


class StreamRecorder:
    """Writes the segments of one stream.

    Args:
        stream: ``"raw"`` or ``"overlay"``.
        disk: writer of the files.
        grid: times at which segments start.
        hide: rectangles to fill with black, in pixels of the first frame.
        number: number of the segment before the first one.
        counts: counts to continue.
    """

    def __init__(
        self,
        stream: str,
        disk: DiskWriter,
        grid: SegmentGrid,
        hide: Sequence[Rect],
        number: int,
        counts: StreamCounts,
    ) -> None:
        self.stream = stream
        self.counts = counts
        self._disk, self._grid, self._hide, self._number = disk, grid, hide, number
        self._mp4: SegmentMp4 | None = None
        self._file: SegmentFile | None = None
        self._key: tuple[int, tuple[int, int]] | None = None  # cell and size of the open segment
        self._row: Row = {}
        self._last_s = float("-inf")
        self._written_s = 0.0

    def write(self, frame: LiveFrame) -> None:
        """Add a frame, in a new segment when it is time or when its size changes.

        Args:
            frame: frame to write; its pixels are changed where rectangles are hidden.
        Raises:
            ChannelClosedError: writing has failed.
            RecordingStoppedError: a rectangle to hide is not in the frame.
        """
        if frame.captured_s <= self._last_s:
            self.counts.repeated += 1
            return
        frame_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        if self.counts.reference_hw is None:
            self.counts.reference_hw = frame_hw
        try:
            hide(frame.rgb, self._hide, self.counts.reference_hw)
        except BadInputError as error:
            raise RecordingStoppedError(error.message) from error
        key = (self._grid.cell(frame.captured_s), frame_hw)
        if key != self._key:
            self.close()
            self._begin(frame, frame_hw)
            self._key = key
        assert self._mp4 is not None and self._file is not None
        before = _copied(self._row)
        pts = round((frame.captured_s - self._row["first_captured_s"]) / TRAITS.time_base)
        blocks = self._mp4.add(frame.rgb, pts)
        self._note(frame)
        if blocks:
            self._disk.write(self._file, blocks, before)

    def rest(self) -> None:
        """Close the open segment when no frame came for the length of a segment."""
        if self._file is not None and time.monotonic() - self._written_s > self._grid.segment_s:
            self.close()

    def close(self) -> None:
        """Finish the open segment. A second call does nothing.

        Raises:
            ChannelClosedError: the disk takes no more.
        """
        mp4, file = self._mp4, self._file
        self._mp4 = self._file = self._key = None
        if mp4 is not None and file is not None:
            self._disk.write(file, mp4.close(), _copied(self._row))
            self._disk.finish(file)

    def _begin(self, frame: LiveFrame, frame_hw: tuple[int, int]) -> None:
        self._number += 1
        name = f"{self.stream}-{self._number:06d}.mp4"
        wall = datetime.now(timezone.utc) - timedelta(seconds=time.monotonic() - frame.captured_s)
        opened = {
            "stream": self.stream,
            "file": name,
            "height": frame_hw[0],
            "width": frame_hw[1],
            "first_sequence": frame.sequence,
            "first_captured_s": frame.captured_s,
            "first_wall": wall.isoformat(timespec="milliseconds"),
        }
        self._row = {**opened, "last_sequence": None, "last_captured_s": None, "frames": 0, "gaps": []}
        self._mp4 = SegmentMp4(frame_hw)
        self._file = self._disk.create(name, opened)
        self.counts.segments += 1

    def _note(self, frame: LiveFrame) -> None:
        row, last = self._row, self._row["last_sequence"]
        if last is not None and frame.sequence > last + 1:
            row["gaps"].append([last + 1, frame.sequence - 1])
        row["last_sequence"] = frame.sequence
        row["last_captured_s"] = self._last_s = frame.captured_s
        row["frames"] += 1
        self.counts.written += 1
        self.counts.last_sequence = frame.sequence
        self._written_s = time.monotonic()


def _copied(row: Row) -> Row:
    return {**row, "gaps": list(row["gaps"])}
