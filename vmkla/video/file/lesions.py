"""Number the lesions of a video's frames, keep their stills, and write ``lesions.jsonl`` at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmkla.bounded import parse_json
from vmkla.files import output_errors, write_whole, written_whole
from vmkla.procedures.files import LESIONS, ROW_MAX_BYTES, ROWS
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.look_ahead import LookAhead
from vmkla.procedures.quality import FrozenPicture, SmallView, measure, small_view
from vmkla.procedures.stills import Stills
from vmkla.procedures.tracker import LesionTracker, TrackerOptions
from vmkla.segment.findings import Findings
from vmkla.segment.preprocess import Rect
from vmkla.video.media.frames import Frame
from vmkla.video.media.sinks import to_json

CANDIDATE_S = 6.0
"""Longest gap after which a lesion may be joined to an earlier one, once all rows are known, seconds."""
FROZEN_S = 1.0
"""Time from which a picture that stays the same is reported as frozen, seconds."""


class FrameLesions:
    """The lesions of one video.

    Args:
        folder: folder of the run.
        marked: whether findings are drawn.
    Raises:
        MissingDependencyError: the package ``lap`` is not installed.
    """

    def __init__(self, folder: Path, *, marked: bool) -> None:
        self._folder = folder
        self._marked = marked
        self._frozen = FrozenPicture()
        self._stills = Stills(folder)
        self._tracker = LesionTracker(TrackerOptions(candidate_s=CANDIDATE_S))
        self._look_ahead = LookAhead()
        self._records = LesionRecords()
        self.joined: Mapping[int, int] = {}  # after ``finish``: number of a lesion -> that of an earlier one

    def track(self, frame: Frame, findings: Findings | None, rect: Rect) -> dict[str, Any]:
        """Number the findings of the next frame, and rate its picture.

        Args:
            frame: the frame, of a video.
            findings: its findings; None for a frame that the stride skips.
            rect: its field of view, px.
        Returns:
            ``box_lesions`` and, where something happened, ``lesion_events``, and of a poor picture ``poor``:
            the row's part.
        Raises:
            BadInputError: a still cannot be written.
        """
        assert frame.pts_s is not None
        tracked = self._tracker.update(frame.pts_s, findings.regions if findings else None, frame.rgb)
        part: dict[str, Any] = {"box_lesions": list(tracked.numbers) if findings else None}
        if tracked.events:
            part["lesion_events"] = [event.to_dict() for event in tracked.events]
        if findings is not None:
            view = small_view(frame.rgb, rect)
            if (poor := self._poor(view, frame.pts_s)) is not None:
                part["poor"] = poor
            if findings.any:
                self._stills.offer(frame.pts_s, frame.rgb, view, findings, tracked.numbers)
        return part

    def _poor(self, view: SmallView, time_s: float) -> str | None:
        """Return why the picture is poor, or None; a black picture is also frozen, and reported as black."""
        same_s = self._frozen.see(view, time_s)
        return measure(view).poor or ("frozen" if same_s >= FROZEN_S else None)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row that was written."""
        self._look_ahead.add(row)
        self._records.add(row, marked=self._marked)

    def finish(self) -> int:
        """Join what belongs together, in ``frames.jsonl`` as well, and write ``lesions.jsonl``.

        Rows whose numbers change are written again.

        Returns:
            The number of lesions.
        Raises:
            BadInputError: a file cannot be written. A lesion whose still cannot be written has none.
        """
        self.joined = self._look_ahead.joined()
        if self.joined:
            self._records = LesionRecords()
            self._renumber(self._folder / ROWS, self.joined)
        for number, final in self.joined.items():
            record = self._records.by_number[final]
            record.joined = (*record.joined, number)
        found = self._records.by_number.values()
        try:
            self._stills.finish(self.joined)
        finally:
            for record in found:
                record.still = self._stills.of(record.number)
            lines = b"".join(to_json(record.to_dict()) + b"\n" for record in found)
            write_whole(self._folder / LESIONS, lines)
        return len(found)

    def _renumber(self, rows: Path, joined: Mapping[int, int]) -> None:
        """Write final numbers into the boxes of the rows; events keep the numbers of their time."""
        with output_errors(rows), open(rows, "rb") as before, written_whole(rows) as after:
            for line in before:
                row = parse_json(line, ROW_MAX_BYTES)
                if row["box_lesions"]:
                    row["box_lesions"] = [joined.get(number, number) for number in row["box_lesions"]]
                self._records.add(row, marked=self._marked)
                after.write(to_json(row) + b"\n")
