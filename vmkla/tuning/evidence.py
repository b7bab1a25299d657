"""What was measured of a model at one threshold: peaks over lesions, and in frames without one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.evaluation.alarms import Alarms, count_alarms
from vmkla.metrics import wilson
from vmkla.segment.operating_point import CLINICAL_MIN_FRACTION, OperatingPoint

MIN_FRACTIONS = (0.0, 0.0005, 0.001, 0.002, CLINICAL_MIN_FRACTION)
"""Smallest areas that are tried, shares of the field of view, beside the model's own. Larger ones would hide
small lesions, of which labelled images hold few."""

Floats = npt.NDArray[np.float64]


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
