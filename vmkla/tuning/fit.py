"""Choose the operating point whose cost on measured frames meets a request.

The threshold stays: it makes the regions. Peak and smallest area decide which of them count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, GateError, UsageError
from vmkla.segment.operating_point import OperatingPoint
from vmkla.tuning.candidates import Candidates
from vmkla.tuning.evidence import Evidence

_LEVEL = 0.95
_RULE_OF_THREE = 3.0
"""No event in a time T bounds the rate at 3 / T, at 95 %.
Source: Hanley & Lippman-Hand, JAMA 249:1743, 1983."""


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

    For a number of alarms: the most lesions found. For a sensitivity: the fewest alarms. Alarms are the most
    at the point's peak and above.

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
    candidates = Candidates.of(evidence, own.threshold)
    if request.alarms_per_minute is not None:
        point = candidates.most_found(request.alarms_per_minute * evidence.minutes)
    else:
        point = candidates.fewest_alarms((request.sensitivity or 0) * len(evidence.lesions))
    if point is None:
        raise _unreachable(candidates.found, candidates.alarms, evidence, request)
    return point


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
