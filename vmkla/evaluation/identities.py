"""Compare the numbers of a tracker with true identities: HOTA, IDF1, switches and numbers per lesion."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.imports import require
from vmkla.procedures.boxes import iou
from vmkla.segment.findings import Region
from vmkla.segment.preprocess import Rect, union

LEAST_OVERLAP = 0.5
"""Overlap of the boxes from which a finding is that of a lesion, for IDF1, switches and numbers."""


@dataclass
class Identities:
    """Boxes of one recording, by identity, frame by frame.

    Attributes:
        truth: the true lesions of each frame.
        given: the same by the numbers that were given.
    """

    truth: list[dict[Hashable, Rect]] = field(default_factory=list)
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


class IdentityTally:
    """Measures the agreement of recordings one by one, and joins any choice of them.

    Raises:
        MissingDependencyError: the package ``trackeval`` is not installed.
    Source: Luiten et al., IJCV 129, 2021 (HOTA); Ristani et al., ECCV workshops, 2016 (IDF1); Bernardin &
        Stiefelhagen, EURASIP 2008 (switches). All by the package ``trackeval``.
    """

    def __init__(self) -> None:
        metrics = require("trackeval.metrics", extra="procedures", purpose="HOTA and IDF1")
        options = {"THRESHOLD": LEAST_OVERLAP, "PRINT_CONFIG": False}
        self._measures = (metrics.HOTA(), metrics.Identity(options), metrics.CLEAR(options))
        self._results: dict[str, list[dict[str, Any]]] = {}  # group -> a result of each measure
        self._numbers: dict[str, tuple[int, int]] = {}  # group -> found lesions, numbers

    def add(self, group: str, recording: Identities) -> None:
        """Measure a recording of a group, such as a procedure."""
        data = _data(recording)
        results = [measure.eval_sequence(data) for measure in self._measures]
        if group in self._results:
            both = zip(self._measures, self._results[group], results, strict=True)
            results = [measure.combine_sequences({"a": old, "b": new}) for measure, old, new in both]
        self._results[group] = results
        own = _numbers_of(recording)
        found, numbers = self._numbers.get(group, (0, 0))
        self._numbers[group] = found + len(own), numbers + sum(len(given) for given in own.values())

    def agreement(self, groups: Sequence[str] | None = None) -> Agreement:
        """Return the agreement over all frames of some groups, which may be named more than once.

        Args:
            groups: their names; None takes every group once.
        """
        chosen = list(self._results if groups is None else groups)
        hota, identity, clear = (
            measure.combine_sequences(
                {str(place): self._results[group][at] for place, group in enumerate(chosen)}
            )
            for at, measure in enumerate(self._measures)
        )
        return Agreement(
            hota=float(np.mean(hota["HOTA"])),
            assa=float(np.mean(hota["AssA"])),
            idf1=float(identity["IDF1"]),
            lesions=sum(self._numbers[group][0] for group in chosen),
            switches=int(clear["IDSW"]),
            numbers=sum(self._numbers[group][1] for group in chosen),
        )


def agreement(recordings: Sequence[Identities]) -> Agreement:
    """Measure the agreement over all frames of some recordings.

    Raises:
        MissingDependencyError: the package ``trackeval`` is not installed.
    """
    tally = IdentityTally()
    for index, recording in enumerate(recordings):
        tally.add(str(index), recording)
    return tally.agreement()


def boxes_by_number(numbers: Sequence[int | None], regions: Sequence[Region]) -> dict[int, Rect]:
    """Return the box around all pieces of each numbered lesion of a frame.

    Args:
        numbers: number of each finding's lesion, see ``Tracked``.
        regions: the findings.
    """
    pieces: dict[int, list[Rect]] = {}
    for number, region in zip(numbers, regions, strict=True):
        if number is not None:
            pieces.setdefault(number, []).append(region.box)
    return {number: box for number, boxes in pieces.items() if (box := union(boxes)) is not None}


def _numbers_of(recording: Identities) -> dict[Hashable, set[int]]:
    """Return the numbers that each lesion was given."""
    result: dict[Hashable, set[int]] = {}
    for truth, given in zip(recording.truth, recording.given, strict=True):
        for lesion, box in truth.items():
            overlaps = {number: iou(box, other) for number, other in given.items()}
            best = max(overlaps, key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best] >= LEAST_OVERLAP:
                result.setdefault(lesion, set()).add(best)
    return result


def _data(recording: Identities) -> dict[str, object]:
    """Return a recording as ``trackeval`` reads it: identities from 0, and overlaps per frame."""
    true_ids = _places(recording.truth)
    frames = _with_few_numbers(recording)
    given_ids = _places(frames)
    similarity: list[npt.NDArray[np.float64]] = []
    for truth, given in zip(recording.truth, frames, strict=True):
        overlaps = [[iou(box, other) for other in given.values()] for box in truth.values()]
        similarity.append(np.array(overlaps, np.float64).reshape(len(truth), len(given)))
    return {
        "num_timesteps": len(recording.truth),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(given_ids),
        "num_gt_dets": sum(map(len, recording.truth)),
        "num_tracker_dets": sum(map(len, frames)),
        "gt_ids": [np.array([true_ids[n] for n in boxes], int) for boxes in recording.truth],
        "tracker_ids": [np.array([given_ids[n] for n in boxes], int) for boxes in frames],
        "similarity_scores": similarity,
    }


def _with_few_numbers(recording: Identities) -> list[dict[int, Rect]]:
    """Return the given boxes, with a few numbers below 0 for all that never overlap a lesion.

    Such boxes are false whatever their numbers, and IDF1's memory grows with the square of the numbers: hours
    of alarms have thousands.
    """
    overlapping = {
        number
        for truth, given in zip(recording.truth, recording.given, strict=True)
        for number, box in given.items()
        if any(iou(box, other) > 0 for other in truth.values())
    }
    return [
        {
            number if number in overlapping else -1 - place: box
            for place, (number, box) in enumerate(given.items())
        }
        for given in recording.given
    ]


def _places(frames: Sequence[dict[Any, Rect]]) -> dict[Hashable, int]:
    """Return a number from 0 for each identity, in the order in which they are first seen."""
    return {identity: place for place, identity in enumerate(dict.fromkeys(i for f in frames for i in f))}
