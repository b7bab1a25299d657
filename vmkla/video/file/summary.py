"""The summary of a run's findings: how many, when and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PAUSE_S = 1.0
"""Longest time that a segmented frame stands for, until the next one: pauses of a recording do not count."""


@dataclass(frozen=True)
class LargestRegion:
    """The largest region of a run.

    Attributes:
        at: time of its frame, seconds, or name of its image.
        area_fraction: share of the frame's pixels, 0 to 1.
        place: ninth of the frame that its centre lies in, such as ``"upper left"``.
        box: x, y, width and height, px of the frame.
    """

    at: float | str
    area_fraction: float
    place: str
    box: tuple[int, int, int, int]


class FindingsSummary:
    """Adds up the rows of ``frames.jsonl`` as they are written.

    Args:
        stride: distance between segmented frames, at least 1.

    Attributes:
        frames: number of frames with a finding.
        regions: number of regions in all frames.
        first_s, last_s: time of the first and the last frame with a finding, seconds; None without one, and
            for images.
        with_finding_s, segmented_s: time that the frames with a finding, and all segmented frames, stand for.
        largest: the largest region; None without a finding.
    """

    def __init__(self, stride: int = 1) -> None:
        self._most_s = _PAUSE_S * stride
        self._open: tuple[float, bool] | None = None  # last segmented frame: time, found
        self._span_s = 0.0  # of the one before
        self.frames = self.regions = 0
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.with_finding_s = self.segmented_s = 0.0
        self.largest: LargestRegion | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row; the rows of a video come in the order of time."""
        if not row["segmented"]:
            return
        time_s, boxes = row.get("pts_s"), row["boxes"]
        if time_s is not None:
            self._advance(time_s)
            self._open = (time_s, bool(boxes))
        if not boxes:
            return
        self.frames += 1
        self.regions += len(boxes)
        if time_s is not None:
            self.first_s = time_s if self.first_s is None else self.first_s
            self.last_s = time_s
        height_px, width_px = row["frame_hw"]
        fraction = row["box_areas_px"][0] / (height_px * width_px)  # the largest comes first
        if self.largest is None or fraction > self.largest.area_fraction:
            x, y, w, h = boxes[0]
            where = place((x + w / 2) / width_px, (y + h / 2) / height_px)
            self.largest = LargestRegion(
                row["name"] if time_s is None else time_s, fraction, where, (x, y, w, h)
            )

    def finish(self) -> None:
        """End the summary: the last frame counts as long as the one before it."""
        if self._open is not None:
            self._advance(self._open[0] + self._span_s)
            self._open = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        video = self.segmented_s > 0 or self.first_s is not None
        values: dict[str, Any] = {"frames": self.frames, "regions": self.regions, "largest": None}
        if video:
            values |= {
                "with_finding_s": round(self.with_finding_s, 3),
                "segmented_s": round(self.segmented_s, 3),
                "first_s": self.first_s,
                "last_s": self.last_s,
            }
        if self.largest is not None:
            at = self.largest.at
            values["largest"] = {
                "name" if isinstance(at, str) else "pts_s": at,
                "area_fraction": round(self.largest.area_fraction, 6),
                "place": self.largest.place,
                "box": list(self.largest.box),
            }
        return values

    def _advance(self, time_s: float) -> None:
        """Close the span of the last segmented frame."""
        if self._open is None:
            return
        began_s, found = self._open
        self._span_s = min(max(0.0, time_s - began_s), self._most_s)
        self.segmented_s += self._span_s
        self.with_finding_s += self._span_s * found


def place(across: float, down: float) -> str:
    """Name the ninth of a frame that a point lies in.

    Args:
        across, down: from the left and from the top, 0 to 1.
    """
    column = ("left", "centre", "right")[min(2, int(3 * across))]
    row = ("upper", "middle", "lower")[min(2, int(3 * down))]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
