"""Start and watch the recorder's process, for which the display never waits."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vmkla.video.live.events import EventSink
from vmkla.video.live.recording.disk_guard import DiskGuard
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.recording.process import (
    STATUS_BYTES,
    STATUS_EVERY_S,
    Assignment,
    RecorderStatus,
    record_frames,
)
from vmkla.video.live.recording.segments import StreamCounts
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import RingReader

_SILENT_S = 2.0
"""Time without a status after which a process does not count as recording, seconds."""
_HUNG_S = 10.0
_STARTUP_S = 60.0
_BACK_OFF_S, _BACK_OFF_MAX_S = 0.5, 10.0
_REPORT_MISSED_EVERY_S = 10.0


class Recorder:
    """Starts the recorder's process, watches it, and restarts it when it dies.

    Args:
        folder: folder of the segments, created with access for its owner only. Existing segments are kept,
            and numbers continue after theirs.
        raw: reader of the frames as captured.
        shown: reader of the frames with markers.
        options: options of the recording.
        events: log of the run.
    """

    def __init__(
        self, folder: Path, raw: RingReader, shown: RingReader, options: RecordOptions, events: EventSink
    ) -> None:
        self.folder = folder
        self._readers = {"raw": raw, "overlay": shown}
        self._options = options
        self._events = events
        self._guard = DiskGuard(folder, options.min_free_bytes)
        self._process: BaseProcess | None = None
        self._status: Board | None = None
        self._control: Connection | None = None
        self._latest: RecorderStatus | None = None
        self._counts: dict[str, StreamCounts] = {}
        self._started_s = 0.0
        self._ending = threading.Event()
        self._watcher: threading.Thread | None = None
        self._reported = (float("-inf"), 0)
        self.restarts = 0
        self.state: tuple[bool, str] = (False, "not started")
        """Whether frames are being written, and why not; reading it never waits."""

    @property
    def recording(self) -> bool:
        """Whether frames are being written."""
        return self.state[0]

    @property
    def pid(self) -> int | None:
        """Process id of the recorder; None when there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def counts(self) -> dict[str, Any]:
        """Counts for the report: frames written and missed by stream, and restarts."""
        streams = {stream: asdict(counts) for stream, counts in self._counts.items()}
        return {"streams": streams, "restarts": self.restarts}

    def start(self) -> None:
        """Start recording; returns before the first frame is written.

        Raises:
            BadInputError: the folder cannot be written to, or its disk has too little space.
        """
        self._guard.prepare()
        self.state = (False, "starting")
        self._start_process()
        self._watcher = threading.Thread(target=self._watch, name="vmkla-recorder", daemon=True)
        self._watcher.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Finish the open segments and end the process, by force after ``timeout_s``.

        The reason of an earlier stop stays in ``state``. A second call does nothing.
        """
        if self._watcher is None:
            return
        self._ending.set()
        self._watcher.join(1.0)  # it may be starting a process just now
        process, self._watcher = self._process, None
        self._release()
        if process is not None and process.pid is not None:
            process.join(timeout_s)
            if process.is_alive():
                self._events.add("recorder killed", "it did not finish in time")
                process.kill()
                process.join(1.0)
            self._take_status()
            if self.state[0]:
                self._set_state(False, "the recorder did not finish")
        self._process = None
        if self._status is not None:
            self._status.close()
            self._status = None
        for reader in self._readers.values():
            reader.close()
        if self.state == (False, "starting"):
            self._set_state(False, "ended")

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        with contextlib.ExitStack() as stack:  # closes what was opened when the process cannot be started
            theirs, ours = context.Pipe(duplex=False)
            with theirs:
                stack.enter_context(ours)
                status = stack.enter_context(contextlib.closing(Board(STATUS_BYTES)))
                assignment = Assignment(
                    folder=self.folder,
                    options=self._options,
                    readers=self._readers,
                    status=status,
                    control=theirs,
                    counts=self._counts,
                )
                # A daemon is sent SIGTERM when this process ends without ``close``, and then finishes its
                # segments.
                process = context.Process(
                    target=record_frames, args=(assignment,), name="vmkla-recorder", daemon=True
                )
                process.start()
            stack.pop_all()
        if self._status is not None:
            self._status.close()
        self._process, self._status, self._control = process, status, ours
        self._latest = None
        self._started_s = time.monotonic()

    def _watch(self) -> None:
        back_off_s = _BACK_OFF_S
        while not self._ending.wait(STATUS_EVERY_S):
            self._take_status()
            process = self._process
            assert process is not None
            if self._latest is not None and self._latest.recording:
                back_off_s = _BACK_OFF_S
            if process.is_alive() and not self._is_hung(process):
                continue
            process.join(_SILENT_S)
            self._take_status()
            if self._latest is not None and self._latest.over:
                return
            self._set_state(False, "the recorder died")
            trace = self._latest.trace if self._latest is not None else ""
            self._events.add("recorder died", f"exit status {process.exitcode}", trace=trace)
            self._release()
            if self._ending.wait(back_off_s):
                return
            back_off_s = min(_BACK_OFF_MAX_S, 2 * back_off_s)
            self._restart()

    def _restart(self) -> None:
        try:
            self._start_process()
            self.restarts += 1
        except OSError as error:  # no memory or no process now: tried again later
            self._events.add("recorder not started", error.strerror or str(error))

    def _is_hung(self, process: BaseProcess) -> bool:
        """Kill the process when it has sent no status for long, and return whether it was killed."""
        silent_s = time.monotonic() - (self._latest.at_s if self._latest else self._started_s)
        if self._latest is not None and silent_s > _SILENT_S:
            self._set_state(False, "the recorder does not answer")
        if silent_s < (_HUNG_S if self._latest else _STARTUP_S):
            return False
        process.kill()
        return True

    def _take_status(self) -> None:
        data = self._status.read() if self._status is not None else None
        if data is None:
            return
        self._latest = RecorderStatus.from_bytes(data)
        self._counts = self._latest.counts
        self._set_state(self._latest.recording, self._latest.reason)
        missed = sum(counts.missed for counts in self._counts.values())
        at_s, before = self._reported
        if missed > before and time.monotonic() - at_s > _REPORT_MISSED_EVERY_S:
            self._events.add("recording missed", f"{missed - before} frames", missed=missed)
            self._reported = (time.monotonic(), missed)

    def _set_state(self, recording: bool, reason: str) -> None:
        if (recording, reason) != self.state:
            self.state = (recording, reason)
            self._events.add("recording on" if recording else "recording off", reason)

    def _release(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
