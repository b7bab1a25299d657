"""Publish the status of a run to the monitor page a few times a second, from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import AiState, SignalState
from vmkla.video.live.monitor.status import MAX_EVENTS, MonitorStatus, StatusEvent
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.tallies import Tallies

_EVERY_S = 0.2
_JOIN_S = 2.0


class StatusWriter(threading.Thread):
    """Publishes ``MonitorStatus`` on a board until closed.

    Args:
        board: board that the monitor reads.
        capture, tallies, events: source, counts and log of the run.
        restarts: returns how often the worker was restarted.
        recording: returns whether frames are being written (None when nothing is to be recorded) and why not.
        names: words that must not be published, see ``plain_text``.
    """

    def __init__(
        self,
        board: Board,
        capture: Capture,
        tallies: Tallies,
        events: EventLog,
        *,
        restarts: Callable[[], int],
        recording: Callable[[], tuple[bool | None, str]],
        names: Sequence[str],
    ) -> None:
        super().__init__(name="vmkla-status", daemon=True)
        self._board = board
        self._capture = capture
        self._tallies = tallies
        self._events = events
        self._restarts = restarts
        self._recording = recording
        self._names = tuple(names)
        self._closing = threading.Event()

    def run(self) -> None:
        """Publish until ``close``."""
        while True:
            self._board.publish(self._status().to_json(self._names))
            if self._closing.wait(_EVERY_S):
                return

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self.is_alive():
            self.join(_JOIN_S)

    def _status(self) -> MonitorStatus:
        now_s = time.monotonic()
        tallies, counts, status = self._tallies, self._capture.counts, self._tallies.status
        recording, note = self._recording()
        return MonitorStatus(
            written_s=min(now_s, tallies.looped_s),  # a loop that hangs must not be shown as live
            uptime_s=now_s - tallies.began_s,
            ai=AiState.STARTING if status is None else status.ai,
            ai_reason="" if status is None else status.ai_reason,
            signal=SignalState.LOST if status is None else status.signal,
            fps=tallies.fps(now_s),
            received=counts.received,
            shown=tallies.shown,
            video_delay=tallies.recent_video.summary(now_s),
            marker_delay=tallies.recent_markers.summary(now_s),
            dropped=counts.dropped,
            restarts=self._restarts(),
            recording=recording,
            recording_note=note,
            frame_hw=tallies.frame_hw,
            events=tuple(
                StatusEvent(event.wall, event.kind, event.detail) for event in self._events.recent(MAX_EVENTS)
            ),
        )
