"""Choose the operating point whose cost on measured frames meets a request. Pure numpy.

The threshold stays: it makes the regions. Peak and smallest area decide which of them count. Sensitivity and
alarms only change where the peak passes a measured one, so trying each measured peak is an exact search.

As the peak falls, more frames have a finding, and alarms grow together: at the lowest, one alarm may last for
the whole recording. That gains nothing, so a point is charged with the most alarms at its own and all higher
peaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, GateError, UsageError
from vmkla.evaluation.alarms import Alarms, count_alarms, joined_frames
from vmkla.metrics import wilson
from vmkla.segment.operating_point import CLINICAL_MIN_FRACTION, OperatingPoint

MIN_FRACTIONS = (0.0, 0.0005, 0.001, 0.002, CLINICAL_MIN_FRACTION)
"""Smallest areas that are tried, shares of the field of view, beside the model's own. Larger ones would hide
small lesions, of which labelled images hold few."""
_LEVEL = 0.95
_ROUNDING = 1e-9
"""Slack of a comparison of counts: 0.7 of 10 is above 7 in floating point."""
_RULE_OF_THREE = 3.0
"""No event in a time T bounds the rate at 3 / T, at 95 %.
Source: Hanley & Lippman-Hand, JAMA 249:1743, 1983."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TuneRequest:
    """What the fitted point must reach; one of the two.

    Attributes:
        alarms_per_minute: largest number of alarms, of any duration, in a minute of quiet recording, above 0.
        sensitivity: smallest share of the lesions that is found, above 0 and below 1.
    Raises:
        UsageError: none or both are given, or a value is out of range.
    """

    alarms_per_minute: float | None = None
    sensitivity: float | None = None

    def __post_init__(self) -> None:
        if (self.alarms_per_minute is None) == (self.sensitivity is None):
            raise UsageError(
                "give either the alarms a minute or the sensitivity that the operating point must reach",
                hint="For instance: --alarms-per-minute 1, or --sensitivity 0.95",
            )
        if self.alarms_per_minute is not None and not 0 < self.alarms_per_minute < math.inf:
            raise UsageError(
                f"the alarms a minute are {self.alarms_per_minute:g}, expected a number above 0",
                hint="No recording is long enough to show that there are none: ask for 0.1, for instance.",
            )
        if self.sensitivity is not None and not 0 < self.sensitivity < 1:
            raise UsageError(
                f"the sensitivity is {self.sensitivity:g}, expected a share above 0 and below 1",
                hint="No number of images can show that every lesion is found: ask for 0.95, for instance.",
            )

    @property
    def minutes(self) -> float:
        """Shortest quiet recording that can show the alarms, minutes, by the rule of three."""
        return 0.0 if self.alarms_per_minute is None else _RULE_OF_THREE / self.alarms_per_minute

    @property
    def lesions(self) -> int:
        """Fewest lesions that can show the sensitivity when all are found, by the exact binomial bound."""
        if self.sensitivity is None:
            return 1
        return math.ceil(math.log(1 - _LEVEL) / math.log(self.sensitivity))

    def to_dict(self) -> dict[str, float]:
        """Return the value that was asked for by its name, for JSON."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, eq=False)
class QuietFrames:
    """The frames of one recording without a lesion.

    Attributes:
        times_s: (n,) begin of each frame, rising, seconds.
        peaks: (n, fractions) largest peak among the frame's regions of at least that area; -inf without one.
        frame_s: usual duration of a frame, seconds; None where it follows from the times.
    """

    times_s: Floats
    peaks: Floats
    frame_s: float | None = None

    def alarms(self, has_finding: npt.NDArray[np.bool_]) -> Alarms:
        """Return the alarms when these frames have a finding, (n,)."""
        return count_alarms(self.times_s, has_finding, frame_s=self.frame_s)

    @property
    def recorded_s(self) -> float:
        """Recorded time without gaps, seconds."""
        return self.alarms(np.zeros(len(self.times_s), np.bool_)).recorded_s

    def halves(self) -> tuple[QuietFrames, QuietFrames]:
        """Split the recording in the middle of its frames; a single frame is in the second half."""
        middle = len(self.times_s) // 2
        first, second = (
            QuietFrames(self.times_s[part], self.peaks[part], self.frame_s)
            for part in (slice(middle), slice(middle, None))
        )
        return first, second


@dataclass(frozen=True)
class Cost:
    """What an operating point costs.

    Attributes:
        found, lesions: lesions that are found, of how many.
        alarms: alarms in the quiet recordings.
    """

    found: int
    lesions: int
    alarms: Alarms

    @property
    def sensitivity(self) -> float:
        """Share of the lesions that is found, 0 to 1."""
        return self.found / self.lesions

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with their 95 % intervals, for JSON."""
        return {
            "lesions": self.lesions,
            "found": self.found,
            "sensitivity": self.sensitivity,
            "sensitivity_ci95": list(wilson(self.found, self.lesions)),
            "alarms": self.alarms.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """Peaks that were measured at one threshold.

    Attributes:
        fractions: smallest areas of a region for which the peaks are known, shares of the field of view.
        lesions: (n, fractions) largest peak among the regions of at least that area that share a pixel with
            the lesion; -inf without one.
        quiet: recordings without a lesion.
    """

    fractions: tuple[float, ...]
    lesions: Floats
    quiet: Sequence[QuietFrames]

    def measure(self, point: OperatingPoint) -> Cost:
        """Count lesions and alarms at a point of the same threshold and one of the fractions."""
        column = self.fractions.index(point.min_fraction)
        alarms = Alarms()
        for recording in self.quiet:
            alarms += recording.alarms(reaches(recording.peaks[:, column], point))
        hits = reaches(self.lesions[:, column], point)
        return Cost(int(np.count_nonzero(hits)), len(hits), alarms)

    @property
    def minutes(self) -> float:
        """Recorded time without gaps, minutes."""
        return sum(recording.recorded_s for recording in self.quiet) / 60


def reaches(peaks: Floats, point: OperatingPoint) -> npt.NDArray[np.bool_]:
    """Return which peaks of large enough regions make a finding; see ``OperatingPoint.accepts``."""
    return peaks > -math.inf if point.peak <= point.threshold else peaks >= point.least


def fractions_for(own: OperatingPoint) -> tuple[float, ...]:
    """Return the smallest areas to try for a model with this operating point, rising."""
    return tuple(sorted({*MIN_FRACTIONS, own.min_fraction}))


def check_lesions(lesions: int, request: TuneRequest) -> None:
    """Reject labelled images with too few lesions to fit to.

    Raises:
        BadInputError: there is none, or all being found would not show the sensitivity that is asked for.
    """
    if not lesions:
        raise BadInputError(
            "the labelled images hold no lesion, so nothing would limit what the operating point hides",
            hint="Give images with lesions and their masks: --data DIR",
        )
    if lesions < request.lesions:
        raise BadInputError(
            f"the labelled images hold {_count(lesions, 'lesion')} to fit to; to show a sensitivity of "
            f"{request.sensitivity:g} at 95 % takes at least {request.lesions}, all of them found",
            hint=f"Label {request.lesions - lesions} more, or ask for at most --sensitivity "
            f"{_floor((1 - _LEVEL) ** (1 / lesions)):g}",
        )


def check_minutes(minutes: float, request: TuneRequest, *, about: bool = False) -> None:
    """Reject quiet recordings that are too short.

    Args:
        minutes: length of all of them together.
        request: what they must show.
        about: the length is an estimate.
    Raises:
        BadInputError: they have no length, or no alarm at all in them would not show the rate that is asked
            for.
    """
    if minutes <= 0:
        raise BadInputError(
            "the quiet recordings have no length: a single frame of a video stands for no time",
            hint="Record minutes without a lesion.",
        )
    if minutes < request.minutes:
        raise BadInputError(
            f"the quiet recordings have {'about ' * about}{minutes:.2f} min to fit to; to show at most "
            f"{request.alarms_per_minute:g} alarms a minute at 95 % takes at least {request.minutes:.2f} min "
            "without an alarm",
            hint=f"Record {_ceil(request.minutes - minutes):g} min more without a lesion, or ask for "
            f"--alarms-per-minute {_ceil(_RULE_OF_THREE / minutes):g}",
        )


def fit(evidence: Evidence, own: OperatingPoint, request: TuneRequest) -> OperatingPoint:
    """Choose peak and smallest area; the threshold is the model's own.

    For a number of alarms: the most lesions found. For a sensitivity: the fewest alarms. Of equal points the
    one with fewer alarms, then more lesions found, then the lower peak, then the smaller area. Alarms are the
    most at the point's peak and above.

    Args:
        evidence: measured at the model's threshold, with lesions and quiet frames.
        own: the model's operating point.
        request: what the point must reach on the evidence.
    Raises:
        BadInputError: there is too little evidence for the request.
        GateError: no point reaches it.
    """
    check_lesions(len(evidence.lesions), request)
    check_minutes(evidence.minutes, request)
    curves = [_curve(evidence, column, own.threshold) for column in range(len(evidence.fractions))]
    peaks = np.concatenate([curve[0] for curve in curves])
    found = np.concatenate([curve[1] for curve in curves])
    alarms = np.concatenate([curve[2] for curve in curves])
    column = np.repeat(np.arange(len(curves)), [len(curve[0]) for curve in curves])
    if request.alarms_per_minute is not None:
        allowed = (alarms <= request.alarms_per_minute * evidence.minutes + _ROUNDING) & (found > 0)
        order = (-found, alarms)
    else:
        allowed = found >= (request.sensitivity or 0) * len(evidence.lesions) - _ROUNDING
        order = (alarms, -found)
    if not allowed.any():
        raise _unreachable(found, alarms, evidence, request)
    area = np.asarray(evidence.fractions)[column]
    ranked = np.lexsort((area, peaks, order[1], order[0]))
    best = int(ranked[allowed[ranked]][0])
    lower = peaks[best - 1] if best and column[best - 1] == column[best] else own.threshold
    peak = readable_peak(float(lower), float(peaks[best])) if peaks[best] > own.threshold else own.threshold
    return OperatingPoint(own.threshold, peak, float(area[best]))


def readable_peak(lower: float, upper: float) -> float:
    """Return a short decimal that separates two measured peaks: the first fails it, the second reaches it.

    It is near the middle of the two, so that another runtime's rounding moves neither over it.

    Args:
        lower, upper: the peaks, the first below the second; the second in float32.
    """
    middle = (lower + upper) / 2
    for digits in range(2, 9):
        value = round(middle, digits)
        if lower < value and lower < float(np.float32(value)) <= upper:
            return value
    return upper


def _curve(
    evidence: Evidence, column: int, threshold: float
) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count lesions and alarms at every peak that matters, for one smallest area.

    An alarm is a run of frames, so the number of runs is the number of frames with a finding less the number
    of neighbours that both have one.

    Returns:
        Rising peaks, the first is the threshold; at each the lesions found, and the most alarms of any
        duration at it and above.
    """
    lesions = _raised(evidence.lesions[:, column], threshold)
    frames, pairs = [], []
    for recording in evidence.quiet:
        of_frame = _raised(recording.peaks[:, column], threshold)
        joined = joined_frames(recording.times_s, recording.frame_s)
        frames.append(of_frame)
        pairs.append(np.minimum(of_frame[:-1], of_frame[1:])[joined])
    single, double = np.sort(np.concatenate(frames)), np.sort(np.concatenate(pairs))
    peaks = np.unique(np.concatenate([[threshold], lesions, single]))
    peaks = peaks[peaks >= threshold]
    alarms = _at_least(single, peaks) - _at_least(double, peaks)
    return peaks, _at_least(np.sort(lesions), peaks), np.maximum.accumulate(alarms[::-1])[::-1]


def _raised(peaks: Floats, threshold: float) -> Floats:
    """Raise peaks of regions to the threshold: at a peak that is equal to it every region counts."""
    return np.where(peaks > -math.inf, np.maximum(peaks, threshold), -math.inf)


def _at_least(rising: Floats, limits: Floats) -> npt.NDArray[np.int64]:
    """Return how many of some rising values are at least each limit."""
    return np.asarray(len(rising) - np.searchsorted(rising, limits, side="left"), np.int64)


def _unreachable(
    found: npt.NDArray[np.int64], alarms: npt.NDArray[np.int64], evidence: Evidence, request: TuneRequest
) -> GateError:
    if request.alarms_per_minute is None:
        best = found.max() / len(evidence.lesions)
        return GateError(
            f"no operating point at this threshold finds {request.sensitivity:g} of the lesions; the most "
            f"that one finds is {best:.3f} ({found.max()} of {len(evidence.lesions)})",
            hint=f"Ask for at most --sensitivity {_floor(best):g}, or train on such lesions.",
        )
    least = alarms[found > 0].min() / evidence.minutes if (found > 0).any() else math.nan
    if math.isnan(least):
        return GateError(
            "the model finds no lesion of the labelled images at any operating point",
            hint="See what it finds: vmkla eval --model MODEL --data DIR",
        )
    return GateError(
        f"no operating point with at most {request.alarms_per_minute:g} alarms a minute finds a lesion; the "
        f"fewest with which one is found are {least:.2f} a minute",
        hint=f"Ask for --alarms-per-minute {_ceil(least):g}, or train on quiet frames: --quiet-share",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _floor(share: float) -> float:
    return math.floor(1000 * share) / 1000


def _ceil(rate: float) -> float:
    return math.ceil(100 * rate) / 100
