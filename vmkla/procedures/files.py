"""Names of the files of a procedure in a run's folder."""

from __future__ import annotations

OVERLAY_VIDEO, PAGE, REPORT = "overlay.mp4", "procedure.html", "report.json"
ROWS, LESIONS, STILLS = "frames.jsonl", "lesions.jsonl", "lesions"
RESULTS, EVENTS = "results.jsonl", "events.jsonl"
"""Of a live run: the rows of the frames that the network saw, and its log."""
ROW_MAX_BYTES = 4 << 20
"""Largest length of a line of one of these files."""


def still_names(number: int) -> tuple[str, str]:
    """Return the names of a lesion's clean and of its marked still, relative to the run's folder."""
    return f"{STILLS}/{number:04d}.jpg", f"{STILLS}/{number:04d}.marked.jpg"
