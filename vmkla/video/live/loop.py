"""The display loop: take a frame, decide on its marker, show it, then publish it to the other processes.

The loop waits only for the next frame. The state of the worker, the recorder and the monitor is read from
attributes that other threads replace, and frames are published without waiting for readers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import AiState, LiveFrame, LiveStatus, SignalState
from vmkla.video.live.markers.marker_board import Marker, MarkerBoard
from vmkla.video.live.network.watch import NO_RESULT
from vmkla.video.live.screen import Screen, Shown
from vmkla.video.live.service import service_reports
from vmkla.video.live.shared_memory.ring import FrameRing
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.status_strip import no_signal_frame
from vmkla.video.live.tallies import Tallies

TICK_S = 0.01
"""Interval at which the loop checks the strip while no frame comes, seconds."""
_QUIET_S = 0.04
"""Shortest time before the strip changes without a new frame, seconds, unless it shows a wrong status."""
_BLACK_EVERY_S = 0.1
_LOG_EVERY_S = 1.0
_FIRST_HW = (480, 640)  # size of the black frame before the first frame

_SIGNAL_REASONS = {
    SignalState.LOST: "no signal",
    SignalState.BLACK: "black picture",
    SignalState.FROZEN: "frozen picture",
}
NOT_DRAWN = "markers cannot be drawn"


class Network(Protocol):
    """The network as the loop sees it: a supervisor."""

    @property
    def state(self) -> tuple[AiState, str]:
        """Whether its results may be trusted, and if not why, in a few words. A plain read."""


class Markers(Protocol):
    """Markers as the loop sees them: ``LiveMarkers``."""

    @property
    def marker(self) -> Marker | None:
        """The newest accepted result, ready to be painted. A plain read."""


class DisplayLoop:
    """Shows the frames of one run. Call ``run`` from the main thread when the screen is a window.

    Args:
        capture: source of the frames, started.
        screen: shows the frames.
        network: state of the network: whether its results may be trusted.
        markers: hold the newest marker.
        board: decides whether a marker may be drawn, and paints it.
        frames: ring for the worker and the recorder, which gets each frame after it was shown.
        shown: ring for the recorder and the monitor, which gets each frame with its marker; None when there
            is no such reader.
        tallies: counts and delays of the run.
        events: log of changes of the AI state.
        max_staleness_s: longest time between the capture of a result's frame and that of a frame it covers.
        recording: returns whether frames are being written; None when nothing is to be recorded.
        service_socket: socket of the service manager, see ``service_reports``; None reports to nobody.
    """

    def __init__(
        self,
        capture: Capture,
        screen: Screen,
        network: Network,
        markers: Markers,
        board: MarkerBoard,
        frames: FrameRing,
        shown: FrameRing | None,
        tallies: Tallies,
        events: EventLog,
        *,
        max_staleness_s: float,
        recording: Callable[[], bool | None] = lambda: None,
        service_socket: str | None = None,
    ) -> None:
        self._capture = capture
        self._screen = screen
        self._network = network
        self._markers = markers
        self._board = board
        self._frames = frames
        self._shown_ring = shown
        self._tallies = tallies
        self._events = events
        self._max_staleness_s = max_staleness_s
        self._recording = recording
        self._service_socket = service_socket
        self._last: Shown | None = None
        self._last_s = 0.0
        self._logged_s: dict[tuple[AiState, str], float] = {}

    def run(self, stopped: Callable[[], bool], until_s: float | None = None) -> str:
        """Show frames until the run ends.

        Args:
            stopped: called between frames; True ends the run.
            until_s: end of the run by ``time.monotonic()``; None sets none.
        Returns:
            Why the run ended: ``"stopped"``, ``"closed"`` (the window), ``"source ended"`` or ``"time is
                over"``.
        """
        with service_reports(self._service_socket) as report_alive:
            while True:
                frame = self._capture.take(TICK_S)
                if frame is not None:
                    self._show(frame)
                elif self._capture.ended:
                    return "source ended"
                else:
                    self._tick()
                self._tallies.looped_s = time.monotonic()
                report_alive(self._tallies.status)
                if stopped():
                    return "stopped"
                if self._screen.closed:
                    return "closed"
                if until_s is not None and time.monotonic() >= until_s:
                    return "time is over"

    def _show(self, frame: LiveFrame) -> None:
        """Show one frame, then publish it, so that publishing adds nothing to its delay."""
        marker = self._markers.marker
        status = self._status(marker, frame.captured_s)
        try:
            rgb, drawn = self._board.draw(frame, marker if status.ai is AiState.ON else None)
        except Exception as error:  # the frame itself is intact
            rgb, drawn = frame.rgb, None
            status = replace(status, ai=AiState.OFF, ai_reason=NOT_DRAWN)
            self._events.add("drawing failed", type(error).__name__, cause=str(error))
        shown = Shown(
            frame.sequence,
            rgb,
            frame,
            status,
            marker_sequence=None if drawn is None else drawn.sequence,
            marker_age_ms=None if drawn is None else (frame.captured_s - drawn.captured_s) * 1e3,
            marker=drawn,
        )
        self._hand_over(shown)
        self._frames.publish(frame)
        if self._shown_ring is not None:
            as_shown = LiveFrame(frame.sequence, frame.captured_s, rgb, frame.damaged)
            self._shown_ring.publish(as_shown)

    def _tick(self) -> None:
        """Update the screen when no frame came."""
        now_s = time.monotonic()
        last = self._last
        status = self._status(self._markers.marker, now_s, between=True)
        if status.signal is SignalState.LOST:
            if last is None or last.frame is not None or last.status != status:
                self._board.clear()
            elif now_s - self._last_s < _BLACK_EVERY_S:
                return
            height_px, width_px = _FIRST_HW if last is None else last.rgb.shape[:2]
            black = last.rgb if last is not None and last.frame is None else None
            if black is None:
                black = no_signal_frame(height_px, width_px)
            self._hand_over(Shown(0, black, None, status))
        elif last is not None and last.frame is not None and last.status != status:
            false = last.status.ai is AiState.ON or last.status.signal is not status.signal
            if not false and now_s - self._last_s < _QUIET_S:
                return
            # The same frame again with a new strip; without AI also without its marker.
            on = status.ai is AiState.ON and last.marker is not None
            self._hand_over(
                Shown(
                    last.sequence,
                    last.rgb if on else last.frame.rgb,
                    last.frame,
                    status,
                    marker_sequence=last.marker_sequence if on else None,
                    marker_age_ms=last.marker_age_ms if on else None,
                    marker=last.marker if on else None,
                    again=True,
                )
            )

    def _hand_over(self, shown: Shown) -> None:
        self._screen.show(shown)
        handed_over_s = self._screen.handed_over_s
        before = self._tallies.status
        self._tallies.add(shown, handed_over_s)
        self._last, self._last_s = shown, handed_over_s
        now = (shown.status.ai, shown.status.ai_reason)
        if before is None or (before.ai, before.ai_reason) != now:
            # A state that comes and goes is logged once a second; ``Tallies`` counts each time.
            if handed_over_s - self._logged_s.get(now, -_LOG_EVERY_S) >= _LOG_EVERY_S:
                self._logged_s[now] = handed_over_s
                self._events.add(f"screen ai {now[0].value}", now[1], sequence=shown.sequence)

    def _status(self, marker: Marker | None, at_s: float, *, between: bool = False) -> LiveStatus:
        """Return the status for a frame captured at ``at_s``, or for the time ``between`` two frames."""
        ai, reason = self._network.state
        signal = self._capture.signal
        if ai is AiState.ON and signal is not SignalState.GOOD:
            ai, reason = AiState.OFF, _SIGNAL_REASONS[signal]
        elif ai is AiState.ON and not between:
            # Only whether the network keeps up; the board checks that the result is of the same scene.
            if marker is None or at_s - marker.captured_s > self._max_staleness_s:
                ai, reason = AiState.OFF, NO_RESULT
            elif marker.paused:
                ai, reason = AiState.PAUSED, f"poor picture: {marker.paused}"
        elif ai is AiState.ON and self._last is not None and self._last.status.ai is not AiState.ON:
            # The frame on the screen has no marker and gets none any more, so its status stays.
            ai, reason = self._last.status.ai, self._last.status.ai_reason
        return LiveStatus(ai, "" if ai is AiState.ON else reason, signal, self._recording())
