"""Every operating point of a threshold that makes a difference on measured frames, and the best of them.

Sensitivity and alarms only change where the peak passes a measured one, so trying each measured peak is an
exact search.

As the peak falls, more frames have a finding, and alarms grow together: at the lowest, one alarm may last for
the whole recording. That gains nothing, so a point is charged with the most alarms at its own and all higher
peaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.evaluation.alarms import joined_frames
from vmkla.segment.operating_point import OperatingPoint
from vmkla.tuning.evidence import Evidence, Floats

_ROUNDING = 1e-9
"""Slack of a comparison of counts: 0.7 of 10 is above 7 in floating point."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Every operating point of a threshold whose counts may differ from its neighbours'.

    Attributes:
        threshold: of all the points.
        peaks: (n,) rising for each area, the threshold first.
        areas: (n,) smallest areas, shares of the field of view.
        found: (n,) lesions that are found.
        alarms: (n,) the most alarms at the peak and above.
    """

    threshold: float
    peaks: Floats
    areas: Floats
    found: npt.NDArray[np.int64]
    alarms: npt.NDArray[np.int64]

    @classmethod
    def of(cls, evidence: Evidence, threshold: float) -> Candidates:
        """Count at each peak that was measured, for each smallest area.

        Args:
            evidence: measured at the threshold.
            threshold: of the points.
        """
        curves = [_curve(evidence, column, threshold) for column in range(len(evidence.fractions))]
        peaks, found, alarms = (np.concatenate(values) for values in zip(*curves, strict=True))
        areas = np.repeat(np.asarray(evidence.fractions), [len(curve[0]) for curve in curves])
        return cls(threshold, peaks, areas, found, alarms)

    def most_found(self, most_alarms: float) -> OperatingPoint | None:
        """Return the point that finds most lesions with few enough alarms; None where none finds one.

        Of equal points the one with fewer alarms, then the lower peak, then the smaller area.
        """
        allowed = (self.alarms <= most_alarms + _ROUNDING) & (self.found > 0)
        return self._best(allowed, -self.found, self.alarms)

    def fewest_alarms(self, least_found: float) -> OperatingPoint | None:
        """Return the point with fewest alarms that finds enough lesions; None where none does.

        Of equal points the one that finds more, then the lower peak, then the smaller area.
        """
        return self._best(self.found >= least_found - _ROUNDING, self.alarms, -self.found)

    def _best(self, allowed: npt.NDArray[np.bool_], *order: npt.NDArray[np.int64]) -> OperatingPoint | None:
        """Return the first of the points that are allowed, at a peak between it and the one below."""
        if not allowed.any():
            return None
        ranked = np.lexsort((self.areas, self.peaks, *order[::-1]))
        best = int(ranked[allowed[ranked]][0])
        peak, area = float(self.peaks[best]), float(self.areas[best])
        if peak > self.threshold:  # so the one before is of the same area
            peak = readable_peak(float(self.peaks[best - 1]), peak)
        return OperatingPoint(self.threshold, peak, area)


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
