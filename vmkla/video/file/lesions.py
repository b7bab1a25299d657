"""Number the lesions of a video's frames, keep their stills, and write ``lesions.jsonl`` at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.procedures.files import ROWS
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.look_ahead import CANDIDATE_S, LookAhead
from vmkla.procedures.quality import PictureWatch, small_view
from vmkla.procedures.stills import Stills
from vmkla.procedures.tracker import LesionTracker, TrackerOptions
from vmkla.segment.findings import Findings
from vmkla.segment.preprocess import Rect
from vmkla.video.lesions import renumber, write_lesions
from vmkla.video.media.frames import Frame

Image = npt.NDArray[np.uint8]


class FrameLesions:
    """The lesions of one video.

    Args:
        folder: folder of the run.
        marked: whether findings are drawn.
        pause_on_poor: whether they are not drawn where the picture is poor.
    Raises:
        MissingDependencyError: the package ``lap`` is not installed.
    """

    def __init__(self, folder: Path, *, marked: bool, pause_on_poor: bool = False) -> None:
        self._folder = folder
        self._marked, self._pause_on_poor = marked, pause_on_poor
        self._picture = PictureWatch()
        self._stills = Stills(folder)
        self._tracker = LesionTracker(TrackerOptions(candidate_s=CANDIDATE_S))
        self._look_ahead = LookAhead()
        self._records = LesionRecords()
        self.joined: Mapping[int, int] = {}  # after ``finish``: number of a lesion -> that of an earlier one

    def track(
        self, frame: Frame, findings: Findings | None, rect: Rect, visible_rgb: Image
    ) -> dict[str, Any]:
        """Number the findings of the next frame, and rate its picture.

        Args:
            frame: the frame, of a video.
            findings: its findings; None for a frame that the stride skips.
            rect: its field of view, px.
            visible_rgb: (H, W, 3) uint8, what stills may show of it.
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
            if (poor := self._picture.poor(view, frame.pts_s)) is not None:
                part["poor"] = poor
            if findings.any:
                self._stills.offer(frame.pts_s, visible_rgb, view, findings, tracked.numbers)
        return part

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row that was written."""
        self._look_ahead.add(row)
        self._records.add(row, marked=self._is_marked(row))

    def _is_marked(self, row: Mapping[str, Any]) -> bool:
        return self._marked and not (self._pause_on_poor and "poor" in row)

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
            self._records = renumber(self._folder / ROWS, self.joined, self._is_marked)
        return write_lesions(self._folder, self._records, self.joined, self._stills)
