"""The findings of a frame as part of a row of ``frames.jsonl`` or ``results.jsonl``."""

from __future__ import annotations

from typing import Any

from vmkla.segment.findings import Findings


def findings_row(findings: Findings | None, *, classes: bool) -> dict[str, Any]:
    """Return a row's part.

    Args:
        findings: those of the frame. None: it was not segmented and has null, not zero.
        classes: whether the model has several classes, so that findings carry theirs.
    """
    row: dict[str, Any] = {
        "segmented": findings is not None,
        "area_px": findings.area_px if findings else None,
        "area_fraction": findings.area_fraction if findings else None,
        "boxes": [list(region.box) for region in findings.regions] if findings else None,
        "box_areas_px": [region.area_px for region in findings.regions] if findings else None,
        "box_probabilities": (
            [round(region.probability, 6) for region in findings.regions] if findings else None
        ),
        "box_peaks": [round(region.peak, 6) for region in findings.regions] if findings else None,
    }
    if classes:
        row["box_classes"] = [region.class_index for region in findings.regions] if findings else None
    return row
