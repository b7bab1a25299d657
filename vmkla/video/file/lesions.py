"""Number the lesions of a video's frames, and write ``lesions.jsonl`` at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmkla.bounded import parse_json
from vmkla.files import output_errors, write_whole, written_whole
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.look_ahead import LookAhead
from vmkla.procedures.tracker import LesionTracker, TrackerOptions
from vmkla.segment.findings import Findings
from vmkla.video.media.frames import Frame
from vmkla.video.media.sinks import to_json

CANDIDATE_S = 6.0
"""Longest gap after which a lesion may be joined to an earlier one, once all rows are known, seconds."""
_ROW_MAX_BYTES = 4 << 20


class FrameLesions:
    """The lesions of one video.

    Args:
        marked: whether findings are drawn.
    Raises:
        MissingDependencyError: the package ``lap`` is not installed.
    """

    def __init__(self, *, marked: bool) -> None:
        self._marked = marked
        self._tracker = LesionTracker(TrackerOptions(candidate_s=CANDIDATE_S))
        self._look_ahead = LookAhead()
        self._records = LesionRecords()
        self.joined: Mapping[int, int] = {}  # after ``finish``: number of a lesion -> that of an earlier one

    def track(self, frame: Frame, findings: Findings | None) -> dict[str, Any]:
        """Number the findings of the next frame.

        Args:
            frame: the frame, of a video.
            findings: its findings; None for a frame that the stride skips.
        Returns:
            ``box_lesions`` and, where something happened, ``lesion_events``: the row's part.
        """
        assert frame.pts_s is not None
        tracked = self._tracker.update(frame.pts_s, findings.regions if findings else None, frame.rgb)
        part: dict[str, Any] = {"box_lesions": list(tracked.numbers) if findings else None}
        if tracked.events:
            part["lesion_events"] = [event.to_dict() for event in tracked.events]
        return part

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row that was written."""
        self._look_ahead.add(row)
        self._records.add(row, marked=self._marked)

    def finish(self, rows: Path, lesions: Path) -> int:
        """Join what belongs together, in the rows as well, and write the lesions.

        Args:
            rows: ``frames.jsonl``, complete; rewritten where numbers change.
            lesions: ``lesions.jsonl``.
        Returns:
            The number of lesions.
        Raises:
            BadInputError: a file cannot be written.
        """
        self.joined = self._look_ahead.joined()
        if self.joined:
            self._records = LesionRecords()
            self._renumber(rows, self.joined)
        for number, final in self.joined.items():
            record = self._records.by_number[final]
            record.joined = (*record.joined, number)
        found = self._records.by_number.values()
        write_whole(lesions, b"".join(to_json(record.to_dict()) + b"\n" for record in found))
        return len(found)

    def _renumber(self, rows: Path, joined: Mapping[int, int]) -> None:
        """Write final numbers into the boxes of the rows; events keep the numbers of their time."""
        with output_errors(rows), open(rows, "rb") as before, written_whole(rows) as after:
            for line in before:
                row = parse_json(line, _ROW_MAX_BYTES)
                if row["box_lesions"]:
                    row["box_lesions"] = [joined.get(number, number) for number in row["box_lesions"]]
                self._records.add(row, marked=self._marked)
                after.write(to_json(row) + b"\n")
