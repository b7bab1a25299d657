"""Count alarms in recordings without a lesion, by their duration.

Source: Holzwanger et al., Endoscopy 53 (2021) 937, 10.1055/a-1302-2942: the number of false alerts depends on
how long an alert must last to count, and is given for at least 0.5, 1 and 2 s. Hassan et al., Gastrointest
Endosc 2020, 10.1016/j.gie.2020.06.021: their clinical relevance is the number in a minute of withdrawal, and
the time spent on each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, ShapeError

DURATIONS_S = (0.5, 1.0, 2.0)
"""Alarms are counted whatever their duration, and those that last at least this long, seconds."""
PAUSE_S = 1.0
"""Longest step between two frames of one stretch, unless the frames are this far apart throughout."""
_ROUNDING_S = 1e-6
"""Slack of a comparison: 0.533 s - 0.033 s is below 0.5 s in floating point."""
_Z95 = 1.959964

Times = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Alarms:
    """Alarms of one or more recordings; ``a + b`` joins two.

    Attributes:
        durations_s: duration of each alarm, in order, seconds.
        recorded_s: time that the frames stand for, without gaps, seconds.
    """

    durations_s: tuple[float, ...] = ()
    recorded_s: float = 0.0

    def __add__(self, other: Alarms) -> Alarms:
        return Alarms(self.durations_s + other.durations_s, self.recorded_s + other.recorded_s)

    @property
    def minutes(self) -> float:
        """Recorded time, minutes."""
        return self.recorded_s / 60

    @property
    def share(self) -> float:
        """Share of the recorded time that is in an alarm, 0 to 1; NaN without a recording."""
        return sum(self.durations_s) / self.recorded_s if self.recorded_s else math.nan

    def count(self, at_least_s: float = 0.0) -> int:
        """Return the number of alarms that last at least so many seconds."""
        return sum(duration_s >= at_least_s - _ROUNDING_S for duration_s in self.durations_s)

    def per_minute(self, at_least_s: float = 0.0) -> float:
        """Return the number of such alarms in a minute of recording; NaN without a recording."""
        return self.count(at_least_s) / self.minutes if self.recorded_s else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return the share and the counts by duration, for JSON: ``any``, ``0.5_s``, ``1_s``, ``2_s``."""
        return {
            "recorded_s": round(self.recorded_s, 3),
            "share_of_time": self.share,
            **{
                f"{limit_s:g}_s" if limit_s else "any": {
                    "alarms": self.count(limit_s),
                    "per_minute": self.per_minute(limit_s),
                    "per_minute_ci95": list(rate_interval(self.count(limit_s), self.minutes)),
                }
                for limit_s in (0.0, *DURATIONS_S)
            },
        }


def count_alarms(
    times_s: Sequence[float] | Times, has_finding: Sequence[bool] | Flags, *, frame_s: float | None = None
) -> Alarms:
    """Find the alarms of one recording: maximal runs of consecutive frames that all have a finding.

    A frame lasts until the next one begins. The last frame, and one before a gap, lasts ``frame_s``. An alarm
    lasts from the begin of its first frame to the end of its last. A gap is a step that is longer than
    ``PAUSE_S`` and than twice ``frame_s``: it ends an alarm and does not count as recorded. So irregular time
    stamps are taken as they are, and a pause of the recorder lengthens no alarm.

    Args:
        times_s: (n,) begin of each frame, rising, seconds.
        has_finding: (n,) whether the frame has a finding.
        frame_s: usual duration of a frame, seconds; None takes the median step, 0 for a single frame.
    Raises:
        ShapeError: there are not as many flags as times.
        BadInputError: the times do not rise, or are not finite.
    """
    begin_s, found = np.asarray(times_s, np.float64), np.asarray(has_finding, np.bool_)
    if begin_s.ndim != 1 or begin_s.shape != found.shape:
        raise ShapeError(f"{begin_s.shape} times for {found.shape} frames, expected one for each")
    if not len(begin_s):
        return Alarms()
    if not np.isfinite(begin_s).all() or (np.diff(begin_s) <= 0).any():
        raise BadInputError("the times of the frames do not rise, expected seconds in their order")
    joined = joined_frames(begin_s, frame_s)
    end_s = begin_s + frame_durations(begin_s, frame_s)
    both = found[:-1] & found[1:] & joined
    first, last = found.copy(), found.copy()
    first[1:] &= ~both
    last[:-1] &= ~both
    durations_s = end_s[last] - begin_s[first]
    return Alarms(tuple(durations_s.tolist()), float(np.sum(end_s - begin_s)))


def frame_durations(times_s: Times, frame_s: float | None = None) -> Times:
    """Return how long each frame lasts, (n,), seconds: until the next one, and as usual before a gap.

    Args:
        times_s, frame_s: see ``count_alarms``.
    """
    durations_s = np.full(len(times_s), _usual_step(times_s, frame_s))
    joined = joined_frames(times_s, frame_s)
    durations_s[:-1][joined] = np.diff(times_s)[joined]
    return durations_s


def joined_frames(times_s: Times, frame_s: float | None = None) -> Flags:
    """Return whether each frame but the last is joined to the next one, without a gap between them.

    Args:
        times_s, frame_s: see ``count_alarms``.
    """
    return np.diff(times_s) <= max(PAUSE_S, 2 * _usual_step(times_s, frame_s))


def _usual_step(times_s: Times, frame_s: float | None) -> float:
    if frame_s is not None:
        return frame_s
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0


def rate_interval(count: int, exposure: float) -> tuple[float, float]:
    """Return the 95 % interval of a rate, by Byar's approximation to the Poisson distribution's.

    Alarms come in clusters, which makes the true interval wider.

    Args:
        count: number of events.
        exposure: time in which they were counted; the rate is in events of this unit.
    Returns:
        Lower and upper bound; NaN twice without time.
    Source: Breslow & Day, Statistical Methods in Cancer Research II, 1987, sec. 2.3.
    """
    if not exposure > 0:
        return math.nan, math.nan

    def bound(events: int, sign: int) -> float:
        if not events:
            return 0.0
        return float(events * (1 - 1 / (9 * events) + sign * _Z95 / (3 * math.sqrt(events))) ** 3)

    return bound(count, -1) / exposure, bound(count + 1, 1) / exposure
