"""Keep what the network found in a live run, and make its lesions and the procedure's report at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmkla.procedures.files import RESULTS
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.look_ahead import LookAhead
from vmkla.procedures.report.page import write_page
from vmkla.procedures.report.stored import Lines, to_row
from vmkla.procedures.rows import findings_row
from vmkla.procedures.stills import Stills
from vmkla.video.lesions import renumber, write_lesions
from vmkla.video.live.frame import LiveResult
from vmkla.video.live.line_log import LineLog

SYNC_S = 2.0
"""Longest part of the rows that a power cut can destroy, seconds."""


class LiveProcedure:
    """The procedure that a live run shows. Everything is on the disk, so memory does not grow with it.

    Args:
        folder: folder of the run.
    Raises:
        BadInputError: the file of rows cannot be created.

    Attributes:
        origin_s: begin of the run, seconds of ``time.monotonic()``; times of rows count from here.
        rows: number of rows so far.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines = LineLog(folder / RESULTS, durable=True, sync_s=SYNC_S)
        self.origin_s = time.monotonic()
        self.rows = 0

    @property
    def unwritten(self) -> tuple[int, str]:
        """Number of rows that are not in the file, and why the first of them is missing."""
        return self._lines.unwritten, self._lines.unwritten_because

    def add(self, result: LiveResult, *, classes: bool) -> None:
        """Keep a result, without waiting for the disk.

        Args:
            result: an accepted result.
            classes: whether the model has several classes.
        """
        findings, lesions = result.findings, result.lesions
        row: dict[str, Any] = {
            "index": result.sequence,
            "pts_s": round(result.captured_s - self.origin_s, 6),
            "frame_hw": list(result.frame_hw),
            **findings_row(findings, classes=classes),
            "box_lesions": list(lesions.numbers),
        }
        if lesions.events:
            row["lesion_events"] = [event.to_dict() for event in lesions.events]
        if lesions.poor is not None:
            row["poor"] = lesions.poor
        row["max_probability"] = findings.max_probability
        latency_ms = {**result.latency_ms, "total": sum(result.latency_ms.values())}
        row["latency_ms"] = {stage: round(value_ms, 3) for stage, value_ms in latency_ms.items()}
        self._lines.put(row)
        self.rows += 1

    def close(self) -> None:
        """Write the rows that wait, and close their file; a second call does nothing."""
        self._lines.close()

    def finish(
        self, document: dict[str, Any], first_marked_s: Mapping[int, float], *, stills: bool = False
    ) -> int:
        """Join lesions in the rows, and write ``lesions.jsonl`` and ``procedure.html``.

        Args:
            document: content of ``report.json``.
            first_marked_s: number of a lesion -> time of the first frame shown with a marker of it, seconds
                of ``time.monotonic()``.
            stills: whether the worker has kept stills.
        Returns:
            The number of lesions.
        Raises:
            BadInputError: a file cannot be read or written.
        """
        rows, look_ahead, records = self._folder / RESULTS, LookAhead(), LesionRecords()
        for row in Lines(rows, to_row):
            look_ahead.add(row.values)
            records.add(row.values, marked=False)
        numbers = set(records.by_number)
        joined = {
            number: final for number, final in look_ahead.joined().items() if final in records.by_number
        }
        if joined:
            records = renumber(rows, joined, lambda _: False)
        for number, marked_s in first_marked_s.items():
            record = records.by_number.get(joined.get(number, number))
            if record is not None:
                time_s = max(record.first_s, round(marked_s - self.origin_s, 6))
                if record.first_marker_s is None or time_s < record.first_marker_s:
                    record.first_marker_s = time_s
        kept = None
        if stills:
            kept = Stills(self._folder)
            # The worker may have seen a lesion in a frame whose result came after the end.
            kept.resume(self.origin_s, numbers)
        found = write_lesions(self._folder, records, joined, kept)
        write_page(self._folder, document)
        return found
