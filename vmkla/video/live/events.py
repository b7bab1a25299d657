"""The log of a live run: one JSON line per event, with counts and the latest events in memory."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from vmkla.video.live.line_log import LineLog

_RECENT = 200


@dataclass(frozen=True)
class Event:
    """One event of a live run.

    Attributes:
        at_s: time of the event, seconds of ``time.monotonic()``.
        wall: the same by the wall clock, ISO 8601 in UTC. Only the log uses that clock.
        kind: kind of event in a word or two, for instance ``"ai off"``; events are counted by it.
        detail: a few words for a person, without file names, paths or addresses.
        facts: further values by name, for the log only.
    """

    at_s: float
    wall: str
    kind: str
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "wall": self.wall,
            "monotonic_s": round(self.at_s, 6),
            "kind": self.kind,
            "detail": self.detail,
            **self.facts,
        }


class EventSink(Protocol):
    """Where parts of a run log their events: an ``EventLog``."""

    def add(self, kind: str, detail: str = "", **facts: Any) -> object:
        """Log an event that happens now; see ``Event``."""


class EventLog:
    """The log of a run. ``add`` never waits for the disk and may be called from any thread.

    When the disk refuses a line, the run continues; see ``unwritten``.

    Args:
        path: the file of the log, readable by its owner only; None keeps events in memory only.
    Raises:
        BadInputError: the file cannot be created.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._recent: deque[Event] = deque(maxlen=_RECENT)
        self._counts: Counter[str] = Counter()
        self._lines = None if path is None else LineLog(path, durable=True)

    @property
    def counts(self) -> dict[str, int]:
        """Number of events by kind."""
        with self._lock:
            return dict(self._counts)

    @property
    def unwritten(self) -> tuple[int, str]:
        """Number of events that are not in the file, and why the first of them is missing."""
        lines = self._lines
        return (0, "") if lines is None else (lines.unwritten, lines.unwritten_because)

    def add(self, kind: str, detail: str = "", **facts: Any) -> Event:
        """Log an event that happens now.

        Args:
            kind, detail, facts: see ``Event``; facts are plain values.
        """
        wall = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._lock:
            event = Event(time.monotonic(), wall, kind, detail, facts)
            self._recent.append(event)
            self._counts[kind] += 1
            if self._lines is not None:
                self._lines.put(event.to_dict())
        return event

    def recent(self, n: int) -> list[Event]:
        """Return the last ``n`` events, at most 200, oldest first."""
        with self._lock:
            return list(self._recent)[-n:] if n > 0 else []

    def close(self) -> None:
        """Write the queued lines and close the file; see ``LineLog.close``."""
        if self._lines is not None:
            self._lines.close()
