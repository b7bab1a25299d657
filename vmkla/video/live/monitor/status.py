"""The status that the display process sends to the monitor: a small JSON text, a few times a second.

It holds no name of a source, a file or a host. Free text (the reason for "AI OFF", the detail of an event) is
sent only when it consists of plain words and numbers; see ``plain_text``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.video.live.frame import AiState, SignalState

STATUS_CAPACITY_BYTES = 32 * 1024
"""Size of a board that holds any status."""

MAX_EVENTS = 20
WITHHELD = "details are in the log of the run"

VIDEO_DELAY_LIMIT_MS = 5.75
MARKER_DELAY_LIMIT_MS = 120.0
# Lower edges of the bars; the last one is open. Each holds its limit, so a bar is within it or beyond it.
VIDEO_DELAY_EDGES_MS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 5.75, 7.5, 10.0, 15.0, 20.0, 33.0)
MARKER_DELAY_EDGES_MS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 200.0, 300.0)

_MAX_TEXT = 120
_MAX_CAUSES = 16
_KIND = re.compile(r"[a-z][a-z0-9 _-]{0,39}")
_PLAIN_WORD = re.compile(
    r"[A-Za-z]+(?:-[A-Za-z]+)*(?:'[a-z]+)?"  # words: over-exposed, worker's
    r"|[+-]?\d+(?:\.\d+)?(?:[A-Za-z]{1,5}|%)?|\d+x\d+"  # numbers: -9, 12.5ms, 640x480
    r"|->|[-+/]"
)
_MAX_WORD = 24


def plain_text(text: str, names: Sequence[str] = ()) -> str:
    """Return ``text`` when it holds no names, else a note that it was withheld.

    Paths, addresses, file names, quoted text, host names and what mixes letters, digits and signs are not
    plain words. A name that is one plain word looks like any other: give it in ``names``.

    Args:
        text: text of an event or a state.
        names: names that must not be sent, for instance the source's address and the words in it.
    """
    folded = text.casefold()
    if any(name and name.casefold() in folded for name in names):
        return WITHHELD
    for word in text.split():
        bare = word.strip("(),;").rstrip(".:!?")
        if bare and (len(bare) > _MAX_WORD or not _PLAIN_WORD.fullmatch(bare)):
            return WITHHELD
    return " ".join(text.split())[:_MAX_TEXT]


def plain_kind(kind: str) -> str:
    """Return ``kind`` when it consists of lower-case words, else ``event``."""
    return kind if _KIND.fullmatch(kind) else "event"


@dataclass(frozen=True)
class Delays:
    """Delays of the last minute.

    Attributes:
        limit_ms: limit of p99 (video) or p95 (marker), ms.
        edges_ms: lower edges of the bars, rising, ms; the last bar is open.
        bars: number of delays in each bar.
        count: number of delays; the percentiles are 0 without any.
        p50, p95, p99, max: percentiles and largest delay, ms.
    """

    limit_ms: float
    edges_ms: tuple[float, ...]
    bars: tuple[int, ...]
    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class DelayWindow:
    """Collects the delays of the last minute, for the monitor's histogram.

    ``add`` stores two numbers, since the display loop calls it. ``summary`` takes about 0.1 ms and may be
    called from another thread.

    Args:
        edges_ms: lower edges of the bars, ms.
        limit_ms: limit of the delay, see ``Delays``.
        window_s: length of the window, seconds.
        capacity: largest number of delays that are kept.
    """

    def __init__(
        self, edges_ms: tuple[float, ...], limit_ms: float, *, window_s: float = 60.0, capacity: int = 4096
    ) -> None:
        self._edges_ms = edges_ms
        self._limit_ms = limit_ms
        self._window_s = window_s
        self._times_s: npt.NDArray[np.float64] = np.full(capacity, -np.inf)
        self._values_ms: npt.NDArray[np.float64] = np.zeros(capacity)
        self._next = 0

    @classmethod
    def of_video(cls) -> DelayWindow:
        """Create a window for the delay from capture to display."""
        return cls(VIDEO_DELAY_EDGES_MS, VIDEO_DELAY_LIMIT_MS)

    @classmethod
    def of_markers(cls) -> DelayWindow:
        """Create a window for the delay from capture to the first frame shown with its marker."""
        return cls(MARKER_DELAY_EDGES_MS, MARKER_DELAY_LIMIT_MS)

    def add(self, value_ms: float, now_s: float) -> None:
        """Add a delay, measured at ``now_s`` of ``time.monotonic()``."""
        self._values_ms[self._next] = value_ms
        self._times_s[self._next] = now_s
        self._next = (self._next + 1) % len(self._times_s)

    def summary(self, now_s: float) -> Delays:
        """Return the delays of the last ``window_s`` before ``now_s``."""
        values_ms = self._values_ms[self._times_s > now_s - self._window_s]
        inner = np.searchsorted(np.asarray(self._edges_ms[1:]), values_ms, side="left")
        bars = np.bincount(inner, minlength=len(self._edges_ms))
        if not values_ms.size:
            return Delays(self._limit_ms, self._edges_ms, tuple(int(bar) for bar in bars))
        p50, p95, p99 = np.percentile(values_ms, (50, 95, 99), method="inverted_cdf")
        return Delays(
            self._limit_ms,
            self._edges_ms,
            tuple(int(bar) for bar in bars),
            count=int(values_ms.size),
            p50=round(float(p50), 3),
            p95=round(float(p95), 3),
            p99=round(float(p99), 3),
            max=round(float(values_ms.max()), 3),
        )


@dataclass(frozen=True)
class StatusEvent:
    """One line of the monitor's list of events.

    Attributes:
        wall_time: time of the event, ISO 8601 with the zone, to the second or finer.
        kind: kind of event in lower-case words, for instance ``ai off``.
        detail: further plain words; see ``plain_text``.
    """

    wall_time: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class MonitorStatus:
    """The state of a live run.

    Attributes:
        written_s: time of the status, seconds of ``time.monotonic()``; the monitor shows it for one second.
        uptime_s: time since the start of the run, seconds.
        ai, ai_reason, signal, recording: status on the screen; see ``LiveStatus``.
        recording_note: why recording has stopped, in plain words.
        frame_hw: height and width of the frame shown, px; None before the first.
        fps: number of frames shown in the last second.
        video_delay, marker_delay: delays of the last minute.
        received, shown: number of frames received and shown since the start.
        dropped: cause to number of frames not shown.
        restarts: how often the worker was restarted.
        events: events, the newest last; only the last ``MAX_EVENTS`` are sent.
    """

    written_s: float
    uptime_s: float
    ai: AiState
    ai_reason: str
    signal: SignalState
    fps: float
    received: int
    shown: int
    video_delay: Delays
    marker_delay: Delays
    dropped: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    recording: bool | None = None
    recording_note: str = ""
    frame_hw: tuple[int, int] | None = None
    events: tuple[StatusEvent, ...] = ()

    def to_json(self, names: Sequence[str] = ()) -> bytes:
        """Return the JSON text for the board, without names and at most ``STATUS_CAPACITY_BYTES`` long.

        Args:
            names: names that must not be sent, see ``plain_text``.
        """
        causes = sorted(self.dropped.items(), key=lambda item: -item[1])[:_MAX_CAUSES]
        document = {
            "written_s": self.written_s,
            "uptime_s": round(self.uptime_s, 1),
            "ai": self.ai.value,
            "ai_reason": plain_text(self.ai_reason, names),
            "signal": self.signal.value,
            "recording": self.recording,
            "recording_note": plain_text(self.recording_note, names),
            "picture_hw": list(self.frame_hw) if self.frame_hw else None,
            "fps": round(self.fps, 1),
            "video_delay_ms": _delays_to_dict(self.video_delay),
            "marker_delay_ms": _delays_to_dict(self.marker_delay),
            "received": self.received,
            "shown": self.shown,
            "dropped": {plain_text(cause, names)[:40]: count for cause, count in causes},
            "restarts": self.restarts,
            "events": [
                {
                    "time": event.wall_time[:40],
                    "kind": plain_kind(event.kind),
                    "detail": plain_text(event.detail, names),
                }
                for event in self.events[-MAX_EVENTS:]
            ],
        }
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def _delays_to_dict(delays: Delays) -> dict[str, Any]:
    return {
        "limit": delays.limit_ms,
        "edges": list(delays.edges_ms),
        "bars": list(delays.bars),
        "count": delays.count,
        "p50": delays.p50,
        "p95": delays.p95,
        "p99": delays.p99,
        "max": delays.max,
    }


def read_status(text: bytes) -> dict[str, Any]:
    """Parse a status, and check the values that the page relies on.

    Raises:
        BadInputError: the text is not a status.
    """
    try:
        document = json.loads(text)
        AiState(document["ai"])
        SignalState(document["signal"])
        float(document["written_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"what the display process wrote is not a status: {error!r}") from error
    checked: dict[str, Any] = document
    return checked
