"""From single frames to the figures of a comparison, and the figures held against the gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.verify.frame import Boundary, FrameResult
from vmkla.engines.verify.gates import ClinicalGates
from vmkla.evaluation.summary import SIZE_LIMITS

SIZE_BOUNDS = (0.0, 0.01, *SIZE_LIMITS, 1.0)
"""Sizes of lesions, shares of the image: evaluation's, with those apart that a default gate lets be lost."""
SIZE_NAMES = ("under 1 %", "1 to 5 %", "5 to 15 %", "15 % and more")
_SHIFT = 13
"""Bits of a float32's fraction that the histogram drops: bins are 2^-10 of their value wide."""


@dataclass(frozen=True)
class GateCheck:
    """One gate.

    Attributes:
        name: of the gate.
        limit: what is allowed; None when nothing is (``finite``).
        measured: what was seen; None when no frame could show it.
        passed: it held.
        text: the sentence for people.
    """

    name: str
    limit: float | None
    measured: float | None
    passed: bool
    text: str


class ErrorHistogram:
    """Differences of a stream of probabilities, so that a percentile needs no copy of all."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(1 << (31 - _SHIFT), np.int64)
        self._sum = 0.0

    def add(self, error: npt.NDArray[np.float32]) -> None:
        """Take the absolute differences of one frame, finite."""
        bins = np.ascontiguousarray(error, np.float32).view(np.uint32).ravel() >> _SHIFT
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._sum += float(error.sum(dtype=np.float64))

    @property
    def mean(self) -> float:
        """Of all."""
        return self._sum / int(self._counts.sum())

    def percentile(self, share: float) -> float:
        """Smallest bin's start below or at which that share of all lies; 0.1 % of itself exact."""
        total = int(self._counts.sum())
        index = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * total)))
        return float(np.array([index << _SHIFT], np.uint32).view(np.float32)[0])


def figures(results: Sequence[FrameResult], errors: ErrorHistogram, *, labelled: bool) -> dict[str, Any]:
    """All figures of a comparison, as plain values.

    Args:
        results: of the frames, at least one.
        errors: of all probabilities.
        labelled: the frames have truths.
    """
    finite = all(result.finite_reference and result.finite_candidate for result in results)
    lesions = [lesion for result in results for lesion in result.lesions]
    empty = [result for result in results if result.empty]
    with_lesion = [result for result in results if result.has_lesion]
    worst = max(with_lesion, key=lambda result: result.drop, default=None)
    apart = min(results, key=lambda result: result.agreement)
    loudest = max(results, key=lambda result: result.max_error)
    alarms = {
        "reference": sum(result.alarm_reference for result in empty),
        "candidate": sum(result.alarm_candidate for result in empty),
    }
    lost = [lesion.share for lesion in lesions if lesion.lost]
    return {
        "frames": len(results),
        "labelled": labelled,
        "not_finite": {
            "reference": [result.name for result in results if not result.finite_reference],
            "candidate": [result.name for result in results if not result.finite_candidate],
        },
        "probability_error": {
            "max": loudest.max_error if finite else None,
            "mean": errors.mean if finite else None,
            "p999": errors.percentile(0.999) if finite else None,
            "frame": loudest.name,
        },
        "agreement": {
            "mean_dice": float(np.mean([result.agreement for result in results])),
            "worst_dice": apart.agreement,
            "frame": apart.name,
        },
        "dice": {
            "reference": float(np.mean([result.dice_reference for result in results])),
            "candidate": float(np.mean([result.dice_candidate for result in results])),
            "mean_drop": float(np.mean([result.drop for result in results])),
            "worst_drop": None if worst is None else worst.drop,
            "frame": None if worst is None else worst.name,
            "frames_with_lesion": len(with_lesion),
        },
        "boundary_px": {
            "reference": _boundaries([result.boundary_reference for result in results]),
            "candidate": _boundaries([result.boundary_candidate for result in results]),
        },
        "lesions": {
            "total": len(lesions),
            "found_by_reference": sum(lesion.found_by_reference for lesion in lesions),
            "found_by_candidate": sum(lesion.found_by_candidate for lesion in lesions),
            "lost": len(lost),
            "largest_lost": max(lost, default=0.0) if lesions else None,
            "by_size": [
                {
                    "size": name,
                    "total": len(chosen),
                    "found_by_reference": sum(lesion.found_by_reference for lesion in chosen),
                    "found_by_candidate": sum(lesion.found_by_candidate for lesion in chosen),
                    "lost": sum(lesion.lost for lesion in chosen),
                }
                for name, low, high in zip(SIZE_NAMES, SIZE_BOUNDS[:-1], SIZE_BOUNDS[1:], strict=True)
                for chosen in [
                    [lesion for lesion in lesions if low <= lesion.share < high or lesion.share == high == 1]
                ]
            ],
        },
        "false_alarms": {
            "frames": len(empty),
            **alarms,
            "rise": (alarms["candidate"] - alarms["reference"]) / len(empty) if empty else None,
        },
    }


def check_gates(seen: dict[str, Any], gates: ClinicalGates) -> tuple[GateCheck, ...]:
    """Hold figures against gates; a gate whose figure no frame could show passes, and says so.

    Args:
        seen: what ``figures`` returns.
        gates: the limits.
    """
    wrong = {side: names for side, names in seen["not_finite"].items() if names}
    said = "; ".join(
        f"the {side}'s probability holds NaN or infinity in {len(names)} of {seen['frames']} frames, "
        f"first in {names[0]}"
        for side, names in wrong.items()
    )
    count = sum(map(len, wrong.values()))
    checks = [GateCheck("finite", 0.0, float(count), not wrong, said or "every probability is finite")]
    error, dice, lesions = seen["probability_error"], seen["dice"], seen["lesions"]
    empty = seen["false_alarms"]["frames"]
    alarms = seen["false_alarms"]["rise"]
    rows = (
        ("max_mean_dice_drop", dice["mean_drop"], "mean Dice drop", ""),
        ("max_worst_dice_drop", dice["worst_drop"], "worst image's Dice drop", f" ({dice['frame']})"),
        ("max_lost_lesion", lesions["largest_lost"], "share of the largest lost lesion", ""),
        ("max_false_alarm_rise", alarms, "rise of false alarms", f" on {empty} frames without a lesion"),
        ("max_error", error["max"], "max probability error", f" ({error['frame']})"),
        ("mean_error", error["mean"], "mean probability error", ""),
    )
    limits = gates.limits()
    for name, measured, what, where in rows:
        limit = limits[name]
        if limit is None:
            continue
        if measured is None:
            # Without a lesion, or without a frame that lacks one, there is nothing to lose; NaN is no excuse.
            unseen = name not in ("max_error", "mean_error")
            why = "no frame shows it" if unseen else "no number, since a value is not finite"
            checks.append(GateCheck(name, limit, None, unseen, f"{what}: {why}"))
            continue
        passed = measured <= limit
        checks.append(
            GateCheck(
                name, limit, measured, passed, f"{what} is {measured:.3g}{where}, allowed is {limit:.3g}"
            )
        )
    return tuple(checks)


def _boundaries(values: Sequence[Boundary | None]) -> dict[str, Any] | None:
    known = [asdict(value) for value in values if value is not None]
    if not known:
        return None
    return {
        "frames": len(known),
        "mean": float(np.mean([value["mean_px"] for value in known])),
        "hd95": float(np.mean([value["hd95_px"] for value in known])),
        "worst_hd95": max(value["hd95_px"] for value in known),
    }
