"""The operating point: which connected regions of a probability map count as findings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vmkla.errors import UsageError
from vmkla.plain_values import from_plain

CLINICAL_MIN_FRACTION = 0.005
"""Smallest area of a region that evaluation and verification count as an alarm or a lesion, as a share of the
field of view, for models that do not state their own."""


@dataclass(frozen=True)
class OperatingPoint:
    """The rule by which a connected region counts as a finding. The defaults keep every region.

    Attributes:
        threshold: probability at and above which a pixel belongs to a region, 0 to 1. Without effect for
            several classes, where a pixel belongs to its most probable class.
        peak: largest probability that a region must reach among the network's own pixels, threshold to 1.
            NaN, the default, stands for the threshold.
        min_fraction: smallest area of a region as a share of the field of view, at least 0 and below 1.
    Raises:
        UsageError: a value is outside its range, or the peak is below the threshold.
    """

    threshold: float = 0.5
    peak: float = math.nan
    min_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"the threshold is {self.threshold}, expected 0 to 1")
        if math.isnan(self.peak):
            object.__setattr__(self, "peak", self.threshold)
        if not self.threshold <= self.peak <= 1:
            raise UsageError(
                f"the peak is {self.peak}, expected the threshold, which is {self.threshold}, to 1",
                hint="Raise the peak, or lower the threshold.",
            )
        if not 0 <= self.min_fraction < 1:
            raise UsageError(
                f"the smallest area of a finding is {self.min_fraction} of the field of view, expected at "
                "least 0 and below 1"
            )

    def accepts(self, area_px: int, peak: float, field_px: int) -> bool:
        """Report whether a region of the threshold's mask is a finding.

        Args:
            area_px: its number of pixels.
            peak: largest probability among the network's own pixels under it.
            field_px: number of pixels of the field of view, of the same size as those of the area.
        """
        # At the default peak the mask's own threshold decides; with several classes it has no effect.
        high = self.peak <= self.threshold or peak >= self.least
        return high and area_px >= self.min_fraction * field_px

    @property
    def least(self) -> float:
        """Peak in the precision of a network's output, float32, so that an equal probability reaches it."""
        return float(np.float32(self.peak))

    def to_dict(self) -> dict[str, float]:
        """Return the values by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PointOverrides:
    """What a user gives in the place of a model's own operating point; None keeps the model's value.

    Attributes:
        threshold: above 0, at most 1. A peak of the model's below it rises to it: no region can lie between.
        peak: above 0, at most 1.
        min_fraction: at least 0, below 1.
    Raises:
        UsageError: a value is outside its range, or the peak is below the threshold.
    """

    threshold: float | None = None
    peak: float | None = None
    min_fraction: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("peak", self.peak)):
            if value is not None and not 0 < value <= 1:
                raise UsageError(
                    f"{name} is {value:g}, expected a probability above 0 and at most 1",
                    hint=f"For instance: --{name} {'0.5' if name == 'threshold' else '0.95'}",
                )
        self.on(OperatingPoint(0.0))

    def on(self, own: OperatingPoint) -> OperatingPoint:
        """Return a model's own operating point with the values that are given here.

        Raises:
            UsageError: the peak that is given is below the model's threshold.
        """
        threshold = own.threshold if self.threshold is None else self.threshold
        return OperatingPoint(
            threshold,
            max(own.peak, threshold) if self.peak is None else self.peak,
            own.min_fraction if self.min_fraction is None else self.min_fraction,
        )


OWN_POINT = PointOverrides()
"""Every value as the model states it."""


def stated_point(values: Any, threshold: float) -> OperatingPoint | None:
    """Read the operating point that a model file states.

    Args:
        values: what ``OperatingPoint.to_dict`` returned, or None where the file states a threshold only.
        threshold: the threshold that the file states beside it.
    Raises:
        TypeError, KeyError: a value is missing, superfluous or of another type.
        ValueError: the two thresholds differ.
        UsageError: a value is outside its range.
    """
    if values is None:
        return None
    point: OperatingPoint = from_plain(OperatingPoint, values, "operating_point")
    if missing := sorted(set(point.to_dict()) - set(values)):
        raise KeyError(missing[0])
    if point.threshold != threshold:
        raise ValueError(f"the operating point's threshold is {point.threshold}, and the file's {threshold}")
    return point
