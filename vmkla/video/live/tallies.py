"""Counts and delays of a live run."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from vmkla.video.latency import LatencyStats
from vmkla.video.live.frame import AiState, LiveStatus, SignalState
from vmkla.video.live.monitor.status import DelayWindow
from vmkla.video.live.screen import Shown

_RECENT = 128
_MOST_LESIONS = 1 << 16
"""Number of lesions of which the first marker is known: days of false alarms, in some megabytes."""


@dataclass
class Tallies:
    """Counts and delays of one run. The display loop writes them; any thread may read them.

    Attributes:
        shown: number of the source's frames that reached the screen.
        marked: number of shown frames with a marker.
        covered: number of shown frames with a recent enough result of the same scene.
        replaced: number of black frames shown in place of a lost signal.
        video_delay_ms: time from a frame being complete in memory to its display buffer being handed over.
        marker_delay_ms: time from the capture of a frame to the first shown frame with its marker.
        gap_ms: time between two shown frames without a lost signal between them.
        added_gap_ms: how much longer such a gap is than the time between the two captures.
        ai_s, signal_s: time in each state, as the status strip showed it, seconds.
        first_marked_s: number of a lesion -> time at which a marker of it was first handed over, seconds of
            ``time.monotonic()``.
        off_reasons: number of times that each reason for "AI OFF" began.
        status: what the strip shows now; None before the first frame.
        frame_hw: height and width of the last frame, px.
        looped_s: time of the display loop's last pass, seconds of ``time.monotonic()``; the other values are
            valid until then.
    """

    shown: int = 0
    marked: int = 0
    covered: int = 0
    replaced: int = 0
    video_delay_ms: LatencyStats = field(default_factory=LatencyStats)
    marker_delay_ms: LatencyStats = field(default_factory=LatencyStats)
    gap_ms: LatencyStats = field(default_factory=LatencyStats)
    added_gap_ms: LatencyStats = field(default_factory=LatencyStats)
    recent_video: DelayWindow = field(default_factory=DelayWindow.of_video)
    recent_markers: DelayWindow = field(default_factory=DelayWindow.of_markers)
    ai_s: dict[AiState, float] = field(default_factory=lambda: dict.fromkeys(AiState, 0.0))
    signal_s: dict[SignalState, float] = field(default_factory=lambda: dict.fromkeys(SignalState, 0.0))
    first_marked_s: dict[int, float] = field(default_factory=dict)
    off_reasons: Counter[str] = field(default_factory=Counter)
    status: LiveStatus | None = None
    frame_hw: tuple[int, int] | None = None
    began_s: float = field(default_factory=time.monotonic)
    looped_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._since_s = self._ai_since_s = self.began_s
        self._last: tuple[float, float] | None = None  # capture and hand-over of the last frame
        self._last_marker = 0
        self._shown_s: deque[float] = deque(maxlen=_RECENT)

    def add(self, shown: Shown, handed_over_s: float) -> None:
        """Count a frame that was just shown."""
        self._account(shown.status, handed_over_s)
        frame = shown.frame
        if frame is None:
            self.replaced += 1
            self._last = None
            return
        if shown.again:
            return
        self.shown += 1
        self.frame_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        self._shown_s.append(handed_over_s)
        delay_ms = (handed_over_s - frame.captured_s) * 1e3
        self.video_delay_ms.add(delay_ms)
        self.recent_video.add(delay_ms, handed_over_s)
        if self._last is not None:
            gap_s = handed_over_s - self._last[1]
            self.gap_ms.add(gap_s * 1e3)
            self.added_gap_ms.add(max(0.0, gap_s - (frame.captured_s - self._last[0])) * 1e3)
        self._last = (frame.captured_s, handed_over_s)
        if shown.marker is None:
            return
        self.covered += 1
        self.marked += bool(shown.marker.drawing.layers)
        if shown.marker.sequence > self._last_marker:
            self._last_marker = shown.marker.sequence
            delay_ms = (handed_over_s - shown.marker.captured_s) * 1e3
            self.marker_delay_ms.add(delay_ms)
            self.recent_markers.add(delay_ms, handed_over_s)
            if shown.marker.drawing.layers and len(self.first_marked_s) < _MOST_LESIONS:
                for number in shown.marker.lesions:
                    self.first_marked_s.setdefault(number, handed_over_s)

    def fps(self, now_s: float) -> float:
        """Return the number of frames shown in the last second."""
        return float(sum(now_s - 1 < shown_s for shown_s in list(self._shown_s)))

    @property
    def since_ai_changed_s(self) -> float:
        """How long the strip had shown the same AI state at the last frame, seconds."""
        return self._since_s - self._ai_since_s

    def finish(self, now_s: float) -> None:
        """Account for the time since the last frame."""
        if self.status is not None:
            self._account(self.status, now_s)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the report."""
        return {
            "shown": self.shown,
            "covered": self.covered,
            "marked": self.marked,
            "replaced": self.replaced,
            "video_delay_ms": self.video_delay_ms.to_dict(),
            "marker_delay_ms": self.marker_delay_ms.to_dict(),
            "gap_ms": self.gap_ms.to_dict(),
            "longest_gap_ms": round(self.gap_ms.max_ms, 3),
            "longest_added_gap_ms": round(self.added_gap_ms.max_ms, 3),
            "ai_s": {state.value: round(time_s, 3) for state, time_s in self.ai_s.items()},
            "signal_s": {state.value: round(time_s, 3) for state, time_s in self.signal_s.items()},
            "ai_off": dict(self.off_reasons),
        }

    def _account(self, status: LiveStatus, now_s: float) -> None:
        before = self.status
        if before is not None:
            self.ai_s[before.ai] += now_s - self._since_s
            self.signal_s[before.signal] += now_s - self._since_s
        self._since_s = now_s
        if before is None or before.ai is not status.ai:
            self._ai_since_s = now_s
        if status.ai is AiState.OFF and (
            before is None or (before.ai, before.ai_reason) != (status.ai, status.ai_reason)
        ):
            self.off_reasons[status.ai_reason] += 1
        self.status = status
