"""The recorder's process: read frames from shared memory, encode two streams, write them to the disk."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2

from vmkla.video.channel import ChannelClosedError
from vmkla.video.live.child_process import set_up_child
from vmkla.video.live.recording.disk_guard import DiskGuard, RecordingStoppedError, stop_reason
from vmkla.video.live.recording.disk_writer import DiskWriter
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.recording.segments import (
    STREAMS,
    SegmentGrid,
    StreamCounts,
    StreamRecorder,
    last_number,
)
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import RingReader

STATUS_BYTES = 1 << 16
STATUS_EVERY_S = 0.1
_NICE = 5
_DRAIN_S = 1.0
"""Time for the remaining frames in shared memory at the end, seconds."""
_FINISH_S = 5.0
_DISK_HANGS_S = 3.0
_TRACE = 8000
"""Number of characters kept of an error's traceback, from its end."""


@dataclass(frozen=True)
class Assignment:
    """Arguments of the recorder's process.

    Attributes:
        folder: folder of the recording, which exists.
        options: options of the recording.
        readers: readers of the frames, by stream.
        status: board for the status of the process.
        control: connection whose other end the display process holds; when that is closed, recording ends.
        counts: counts of the processes before, by stream.
    """

    folder: Path
    options: RecordOptions
    readers: Mapping[str, RingReader]
    status: Board
    control: Connection
    counts: Mapping[str, StreamCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class RecorderStatus:
    """Status of the recorder's process.

    Attributes:
        at_s: time of the status, seconds of ``time.monotonic()``.
        recording: whether frames are being written.
        reason: why not; empty when they are.
        over: whether the process has ended for good and is not to be restarted.
        counts: counts by stream.
        trace: traceback of an unexpected error; may name files.
    """

    at_s: float
    recording: bool
    reason: str
    over: bool
    counts: dict[str, StreamCounts]
    trace: str = ""

    def to_bytes(self) -> bytes:
        """Return JSON, for a ``Board``."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> RecorderStatus:
        """Read what ``to_bytes`` returned."""
        values: dict[str, Any] = json.loads(data)
        counts = {}
        for stream, one in values.pop("counts").items():
            size = one.pop("reference_hw")
            counts[stream] = StreamCounts(**one, reference_hw=(size[0], size[1]) if size else None)
        return cls(**values, counts=counts)


class _Stream:
    """The thread of one stream.

    Attributes:
        failure: why the thread has ended; empty while it runs, or when it was asked to end.
        crashed: unexpected error of the thread, if any.
    """

    def __init__(self, reader: RingReader, recorder: StreamRecorder, stop: threading.Event) -> None:
        self.failure = ""
        self.crashed: BaseException | None = None
        self._reader, self._recorder, self._stop = reader, recorder, stop
        self._missed_before: int | None = None
        self._drained_by_s = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"vmkla-{recorder.stream}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread."""
        self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        try:
            frame = self._reader.latest()  # the oldest would be overwritten before the first one is encoded
            while self._go_on():
                if frame is None and self._stop.is_set():
                    break
                if frame is None:
                    self._recorder.rest()
                    self._reader.wait(0.1)
                else:
                    self._count_missed(frame.sequence)
                    self._recorder.write(frame)
                frame = self._reader.next()
            self._recorder.close()
        except ChannelClosedError:
            return  # the disk's thread has the cause
        except RecordingStoppedError as error:
            self.failure = str(error)
        except BaseException as error:  # the main thread ends the process with it
            self.crashed = error

    def _go_on(self) -> bool:
        if not self._stop.is_set():
            return True
        self._drained_by_s = min(self._drained_by_s, time.monotonic() + _DRAIN_S)
        return time.monotonic() < self._drained_by_s

    def _count_missed(self, sequence: int) -> None:
        """Count missed frames; those before the first count only after an earlier process."""
        counts, missed = self._recorder.counts, self._reader.missed + self._reader.torn
        if self._missed_before is not None:
            counts.missed += missed - self._missed_before
        elif counts.last_sequence:
            counts.missed += max(0, sequence - counts.last_sequence - 1)
        self._missed_before = missed


def record_frames(assignment: Assignment) -> None:
    """Record until the display process closes ``control`` or ends. The main function of the process.

    The process ends with status 0 when it was asked to end or cannot continue, as its last status reports;
    with another one after an unexpected error, and then it may be restarted.
    """
    stop = threading.Event()
    terminated = threading.Event()
    _set_up_process(terminated)
    counts = {stream: assignment.counts.get(stream, StreamCounts()) for stream in STREAMS}
    report = partial(_publish, assignment.status, counts)
    options = assignment.options
    guard = DiskGuard(assignment.folder, options.min_free_bytes)
    try:
        number = last_number(assignment.folder)
        disk = DiskWriter(assignment.folder, guard, sync_s=options.sync_s)
    except OSError as error:
        report(recording=False, reason=stop_reason(error), over=True)
        return
    grid = SegmentGrid(options.segment_s)
    streams = [
        _Stream(
            assignment.readers[name],
            StreamRecorder(name, disk, grid, options.hide, number, counts[name]),
            stop,
        )
        for name in STREAMS
    ]
    while not terminated.is_set() and all(stream.alive for stream in streams) and not disk.failure:
        hangs = disk.busy_s > _DISK_HANGS_S
        report(recording=not hangs, reason="the disk does not answer" if hangs else "", over=False)
        if assignment.control.poll(STATUS_EVERY_S):
            break  # the other end was closed: nothing is ever sent
    stop.set()
    until_s = time.monotonic() + _FINISH_S
    for stream in streams:
        stream.join(until_s - time.monotonic())
    ended = disk.close(max(0.5, until_s - time.monotonic()))
    crashed = next((stream.crashed for stream in streams if stream.crashed is not None), None)
    if crashed is not None:
        trace = "".join(traceback.format_exception(crashed))
        report(
            recording=False, reason=f"unexpected {type(crashed).__name__}", over=False, trace=trace[-_TRACE:]
        )
        sys.exit(1)
    failures = [disk.failure, *(stream.failure for stream in streams)]
    ending = "the recorder was told to end" if terminated.is_set() else "ended"
    reason = next((failure for failure in failures if failure), ending)
    report(recording=False, reason=reason if ended else "the disk does not answer", over=True)
    if not ended:
        os._exit(0)  # a thread still waits for the disk


def _set_up_process(terminated: threading.Event) -> None:
    """Keep this process from disturbing the display, and let it finish its files at the end."""
    set_up_child("vmkla-recorder", niceness=_NICE, end_with_parent=False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    cv2.setNumThreads(1)


def _publish(
    board: Board,
    counts: dict[str, StreamCounts],
    *,
    recording: bool,
    reason: str,
    over: bool,
    trace: str = "",
) -> None:
    board.publish(RecorderStatus(time.monotonic(), recording, reason, over, counts, trace).to_bytes())
