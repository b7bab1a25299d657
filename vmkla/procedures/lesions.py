"""The lesions of a procedure, added up from the rows of ``frames.jsonl``."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmkla.procedures.stills import Still

GAPS_LISTED = 1000
"""Largest number of gaps that a lesion lists: one that flickers for hours would not fit into a line."""


@dataclass
class LesionRecord:
    """One lesion of a procedure.

    Attributes:
        number: its identity, as in ``box_lesions``.
        class_index: class of its findings; None for a model of one class.
        first_s, last_s: time of the first and the last frame with a finding of it, seconds.
        gaps: spans between two of its findings in which searched frames have none: last time before, first
            time after, seconds. Of many, the ``GAPS_LISTED`` longest ones.
        gaps_left_out, gaps_left_out_s: number and total length of those that are not listed.
        areas_px: area in each frame with a finding, px; of several pieces the sum.
        largest_fraction: largest share of a frame's pixels, 0 to 1.
        peak_probability: largest probability among the network's own pixels under it, 0 to 1.
        first_marker_s: time of the first frame that shows a marker of it, seconds; None without one.
        joined: numbers under which parts of it were first written, besides its own.
        still: its best still; None without one.
    """

    number: int
    class_index: int | None
    first_s: float
    last_s: float
    gaps: list[tuple[float, float]] = field(default_factory=list)
    gaps_left_out: int = 0
    gaps_left_out_s: float = 0.0
    areas_px: array[int] = field(default_factory=lambda: array("Q"))
    largest_fraction: float = 0.0
    peak_probability: float = 0.0
    first_marker_s: float | None = None
    joined: tuple[int, ...] = ()
    still: Still | None = None

    def add_gap(self, before_s: float, after_s: float) -> None:
        """Add a gap, the latest so far."""
        self.gaps.append((before_s, after_s))
        if len(self.gaps) >= 2 * GAPS_LISTED:
            self._leave_out_gaps()

    def _leave_out_gaps(self) -> None:
        """Keep the longest gaps, the earlier of equal ones; count the others."""
        by_length = sorted(self.gaps, key=lambda gap: gap[0] - gap[1])
        self.gaps, left_out = sorted(by_length[:GAPS_LISTED]), by_length[GAPS_LISTED:]
        self.gaps_left_out += len(left_out)
        self.gaps_left_out_s += sum(after_s - before_s for before_s, after_s in left_out)

    def to_dict(self) -> dict[str, Any]:
        """Return a row of ``lesions.jsonl``."""
        self._leave_out_gaps()
        values: dict[str, Any] = {"id": self.number}
        if self.class_index is not None:
            values["class"] = self.class_index
        if self.gaps_left_out:
            values["gaps_left_out"] = self.gaps_left_out
            values["gaps_left_out_s"] = round(self.gaps_left_out_s, 6)
        marker_s = self.first_marker_s
        return values | {
            "first_s": self.first_s,
            "last_s": self.last_s,
            "frames": len(self.areas_px),
            "gaps": [list(gap) for gap in self.gaps],
            "largest_area_px": max(self.areas_px),
            "largest_area_fraction": round(self.largest_fraction, 6),
            "median_area_px": statistics.median(self.areas_px),
            "peak_probability": round(self.peak_probability, 6),
            "first_marker_after_s": None if marker_s is None else round(marker_s - self.first_s, 6),
            "joined": list(self.joined),
            "still": None if self.still is None else self.still.to_dict(),
        }


class LesionRecords:
    """Adds up the lesions of rows of ``frames.jsonl``, in the order of time.

    Attributes:
        by_number: the lesions so far, in the order in which they were first seen.
    """

    def __init__(self) -> None:
        self._searched = 0
        self._last_searched: dict[int, int] = {}  # ordinal of the last searched frame with the lesion
        self.by_number: dict[int, LesionRecord] = {}

    def add(self, row: Mapping[str, Any], *, marked: bool) -> None:
        """Count one row; rows without times or lesions change nothing.

        Args:
            row: a row of ``frames.jsonl``.
            marked: whether its findings were drawn.
        """
        numbers, time_s = row.get("box_lesions"), row.get("pts_s")
        if numbers is None or time_s is None:
            return
        self._searched += 1
        frame_px = row["frame_hw"][0] * row["frame_hw"][1]
        classes = row.get("box_classes")
        areas_px: dict[int, int] = {}
        for index, number in enumerate(numbers):
            if number is None:
                continue
            record = self.by_number.get(number)
            if record is None:
                kind = None if classes is None else classes[index]
                record = self.by_number[number] = LesionRecord(number, kind, time_s, time_s)
            areas_px[number] = areas_px.get(number, 0) + row["box_areas_px"][index]
            record.peak_probability = max(record.peak_probability, row["box_peaks"][index])
        for number, area_px in areas_px.items():
            record = self.by_number[number]
            if self._last_searched.get(number, self._searched) < self._searched - 1:
                record.add_gap(record.last_s, time_s)
            self._last_searched[number] = self._searched
            record.last_s = time_s
            record.areas_px.append(area_px)
            record.largest_fraction = max(record.largest_fraction, area_px / frame_px)
            if marked and record.first_marker_s is None:
                record.first_marker_s = time_s
