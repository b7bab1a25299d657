"""Read from the log of a live run when the AI was off and when there was no signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.procedures.report.spans import Span
from vmkla.procedures.report.stored import Lines

AI_OFF, NO_SIGNAL = "AI off", "no signal"
_BEGIN, _END = "run begins", "run ends"
_LOST = "lost"


@dataclass(frozen=True)
class LiveLog:
    """What the log of a live run says about its time.

    Attributes:
        origin_s: begin of the run, seconds of ``time.monotonic()``.
        end_s: time of the last event of the run, seconds from its begin.
        spans: lane to the spans in which the AI was off or there was no signal, seconds from the begin.
    """

    origin_s: float
    end_s: float
    spans: dict[str, list[Span]]


class _Spell:
    """Spans during which something holds."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._since_s: float | None = None

    def set(self, time_s: float, *, holds: bool) -> None:
        if holds and self._since_s is None:
            self._since_s = time_s
        elif not holds and self._since_s is not None:
            self.spans.append((self._since_s, time_s))
            self._since_s = None


def read_log(path: Path) -> LiveLog | None:
    """Read the begin of the run, and the spans of ``AI_OFF`` and ``NO_SIGNAL``.

    A span that lasts when the log ends, ends with it.

    Args:
        path: ``events.jsonl``.
    Returns:
        The log; None where the begin of the run is not in the log.
    Raises:
        BadInputError: the file cannot be read.
    """
    origin_s: float | None = None
    time_s = 0.0
    off, lost = _Spell(), _Spell()
    for at_s, kind, detail in Lines(path, _to_event):
        if origin_s is None:
            if kind != _BEGIN:
                continue
            origin_s = at_s
            off.set(0.0, holds=True)
            lost.set(0.0, holds=True)
        time_s = max(time_s, round(at_s - origin_s, 6))
        if kind == _END:
            break  # the AI and the signal are switched off after it
        if kind.startswith("ai "):
            off.set(time_s, holds=kind != "ai on")
        elif kind == "signal":
            lost.set(time_s, holds=detail.endswith(_LOST))
    if origin_s is None:
        return None
    off.set(time_s, holds=False)
    lost.set(time_s, holds=False)
    return LiveLog(origin_s, time_s, {AI_OFF: off.spans, NO_SIGNAL: lost.spans})


def _to_event(values: dict[str, Any]) -> tuple[float, str, str]:
    at_s = float(values["monotonic_s"])
    if not math.isfinite(at_s):
        raise ValueError("its time is not a number")
    return at_s, str(values["kind"]), str(values["detail"])
