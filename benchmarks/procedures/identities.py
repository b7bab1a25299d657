"""Compare the numbers of a tracker with exact identities: HOTA, IDF1, switches and numbers per lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vmkla.procedures.boxes import iou
from vmkla.segment.preprocess import Rect

LEAST_OVERLAP = 0.5
"""Overlap of the boxes from which a finding is that of a lesion, for IDF1, switches and numbers."""


@dataclass
class Identities:
    """Boxes of one procedure, by identity, frame by frame.

    Attributes:
        truth: the true lesions of each frame.
        given: the same by the numbers that were given.
    """

    truth: list[dict[int, Rect]] = field(default_factory=list)
    given: list[dict[int, Rect]] = field(default_factory=list)


@dataclass(frozen=True)
class Agreement:
    """How well given numbers agree with identities.

    Attributes:
        hota, assa: HOTA and its association part, means over the overlaps, 0 to 1.
        idf1: share of the boxes with the right identity, 0 to 1.
        lesions: number of true lesions with at least one finding.
        switches: number of times that a lesion's number changed.
        numbers: numbers that these lesions were given, each counted once for a lesion.
    """

    hota: float
    assa: float
    idf1: float
    lesions: int
    switches: int
    numbers: int


def agreement(procedures: Sequence[Identities]) -> Agreement:
    """Measure the agreement over all frames of some procedures.

    Source: Luiten et al., IJCV 129, 2021 (HOTA); Ristani et al., ECCV workshops, 2016 (IDF1); Bernardin &
        Stiefelhagen, EURASIP 2008 (switches). All by the package ``trackeval``.
    """
    from trackeval.metrics import CLEAR, HOTA, Identity

    measures = [HOTA(), Identity({"THRESHOLD": LEAST_OVERLAP, "PRINT_CONFIG": False})]
    clear = CLEAR({"THRESHOLD": LEAST_OVERLAP, "PRINT_CONFIG": False})
    results: list[dict[str, object]] = [{}, {}, {}]
    found = numbers = 0
    for index, procedure in enumerate(procedures):
        data = _data(procedure)
        for result, measure in zip(results, (*measures, clear), strict=True):
            result[str(index)] = measure.eval_sequence(data)
        own = _numbers_of(procedure)
        found += len(own)
        numbers += sum(len(given) for given in own.values())
    hota, identity, switches = (
        measure.combine_sequences(result) for result, measure in zip(results, (*measures, clear), strict=True)
    )
    return Agreement(
        hota=float(np.mean(hota["HOTA"])),
        assa=float(np.mean(hota["AssA"])),
        idf1=float(identity["IDF1"]),
        lesions=found,
        switches=int(switches["IDSW"]),
        numbers=numbers,
    )


def _numbers_of(procedure: Identities) -> dict[int, set[int]]:
    """Return the numbers that each lesion was given."""
    result: dict[int, set[int]] = {}
    for truth, given in zip(procedure.truth, procedure.given, strict=True):
        for lesion, box in truth.items():
            overlaps = {number: iou(box, other) for number, other in given.items()}
            best = max(overlaps, key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best] >= LEAST_OVERLAP:
                result.setdefault(lesion, set()).add(best)
    return result


def _data(procedure: Identities) -> dict[str, object]:
    """Return a procedure as ``trackeval`` reads it: identities from 0, and overlaps per frame."""
    true_ids, given_ids = (
        {number: place for place, number in enumerate(sorted({n for boxes in frames for n in boxes}))}
        for frames in (procedure.truth, procedure.given)
    )
    similarity: list[npt.NDArray[np.float64]] = []
    for truth, given in zip(procedure.truth, procedure.given, strict=True):
        overlaps = [[iou(box, other) for other in given.values()] for box in truth.values()]
        similarity.append(np.array(overlaps, np.float64).reshape(len(truth), len(given)))
    return {
        "num_timesteps": len(procedure.truth),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(given_ids),
        "num_gt_dets": sum(map(len, procedure.truth)),
        "num_tracker_dets": sum(map(len, procedure.given)),
        "gt_ids": [np.array([true_ids[n] for n in boxes], int) for boxes in procedure.truth],
        "tracker_ids": [np.array([given_ids[n] for n in boxes], int) for boxes in procedure.given],
        "similarity_scores": similarity,
    }
