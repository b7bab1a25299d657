"""Compute the figures of a comparison from the results of single frames, and check them against the gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.verify.frame import Boundary, FrameResult
from vmkla.engines.verify.gates import TITLES, ClinicalGates, GateCheck, check_limit
from vmkla.evaluation.lesions import SIZE_LIMITS

SIZE_BOUNDS = (0.0, 0.01, *SIZE_LIMITS, 1.0)
"""Bounds of the sizes of lesions, shares of the image: those of ``vmkla eval``, and the share that a default
gate allows to be lost."""
SIZE_NAMES = ("under 1 %", "1 to 5 %", "5 to 15 %", "15 % and more")
_SHIFT = 13
"""Bits of a float32's fraction that the histogram drops: bins are 2^-10 of their value wide."""


class ErrorHistogram:
    """Histogram of the differences of many probabilities, so that a percentile needs no copy of all."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(1 << (31 - _SHIFT), np.int64)
        self._sum = 0.0

    def add(self, error: npt.NDArray[np.float32]) -> None:
        """Add the absolute differences of one frame, all finite."""
        bins = np.ascontiguousarray(error, np.float32).view(np.uint32).ravel() >> _SHIFT
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._sum += float(error.sum(dtype=np.float64))

    @property
    def mean(self) -> float:
        """Mean of all differences."""
        return self._sum / int(self._counts.sum())

    def percentile(self, share: float) -> float:
        """Return the value below which a share of all differences lies, to 0.1 % of its size."""
        total = int(self._counts.sum())
        index = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * total)))
        return float(np.array([index << _SHIFT], np.uint32).view(np.float32)[0])


def figures(results: Sequence[FrameResult], errors: ErrorHistogram, *, labelled: bool) -> dict[str, Any]:
    """Compute all figures of a comparison, as plain values.

    Args:
        results: results of the frames, at least one.
        errors: differences of all probabilities.
        labelled: whether the frames have truths.
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
    """Check figures against gates; a gate whose figure no frame could show passes with a note.

    Args:
        seen: result of ``figures``.
        gates: the limits.
    """
    wrong = {side: names for side, names in seen["not_finite"].items() if names}
    text = "; ".join(
        f"the {side}'s probability holds NaN or infinity in {len(names)} of {seen['frames']} frames, "
        f"first in {names[0]}"
        for side, names in wrong.items()
    )
    count = sum(map(len, wrong.values()))
    checks = [GateCheck("finite", 0.0, float(count), not wrong, text or "every probability is finite")]
    error, dice, alarms = seen["probability_error"], seen["dice"], seen["false_alarms"]
    measured = {
        "max_mean_dice_drop": (dice["mean_drop"], ""),
        "max_worst_dice_drop": (dice["worst_drop"], f" ({dice['frame']})"),
        "max_lost_lesion": (seen["lesions"]["largest_lost"], ""),
        "max_false_alarm_rise": (alarms["rise"], f" on {alarms['frames']} frames without a lesion"),
        "max_error": (error["max"], f" ({error['frame']})"),
        "mean_error": (error["mean"], ""),
    }
    for name, limit in gates.limits().items():
        value, where = measured[name]
        if limit is None:
            continue
        if value is not None:
            checks.append(check_limit(name, limit, value, where))
            continue
        # No lesion can be lost, or no false alarm raised, where no frame could show it; NaN always fails.
        unseen = name not in ("max_error", "mean_error")
        why = "no frame shows it" if unseen else "not a number, since a value is not finite"
        checks.append(GateCheck(name, limit, None, unseen, f"{TITLES[name]}: {why}"))
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
