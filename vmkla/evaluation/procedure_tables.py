"""Convert the figures of recordings to tables of text, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vmkla.evaluation.tables import Table

SHOWN_RECORDINGS = 30
"""Largest number of rows in the table of recordings; ``report.json`` has all."""
_DURATIONS = {"any": "any", "0.5_s": "at least 0.5 s", "1_s": "at least 1 s", "2_s": "at least 2 s"}


def procedure_tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Yield all tables of a document of ``run_procedures``."""
    yield _lesions(document)
    yield _alarms(document)
    yield _recordings(document)


def _lesions(document: Mapping[str, Any]) -> Table:
    lesions, detection = document["lesions"], document["first_detection"]
    frames, identities = document["per_frame"], document["identities"]
    found = f"{lesions['found']} of {lesions['lesions']}"
    rows = [
        ("lesions found", found, *_cells(lesions, "sensitivity", 3)),
        ("time to first detection, median, s", "", *_cells(detection, "median_s", 2)),
        ("time to first detection, 95th percentile, s", "", *_cells(detection, "p95_s", 2)),
        ("persistence from the first detection on", "", *_cells(document["persistence"], "mean", 3)),
        ("frames with a lesion, found", f"of {frames['with_lesion']}", *_cells(frames, "sensitivity", 3)),
        ("frames without, no finding", f"of {frames['without_lesion']}", *_cells(frames, "specificity", 3)),
    ]
    if identities is not None:
        rows += [
            ("numbers of lesions: HOTA", "", *_cells(identities, "hota", 3)),
            ("numbers of lesions: IDF1", "", *_cells(identities, "idf1", 3)),
            ("switches of a lesion's number", str(identities["switches"]), "", ""),
        ]
    return Table(
        f"Lesions, {_counted(document['procedures'], 'procedure')} in "
        f"{_counted(document['recordings'], 'recording')} of {document['recorded_s'] / 60:.1f} min",
        ("", "count", "figure", "95 % interval"),
        tuple(rows),
        "A lesion is found when a finding shares a pixel with it in at least one frame. A missed one counts "
        "as an infinite time; a percentile is the time within which that share of all lesions is found. "
        "Intervals draw whole procedures, and there are none with a single one.",
    )


def _alarms(document: Mapping[str, Any]) -> Table:
    alarms = document["alarms"]
    rows = tuple(
        (
            label,
            str(alarms[key]["alarms"]),
            *("\n".join(_cells(alarms[key], name, 2)).rstrip() for name in ("per_procedure", "per_minute")),
        )
        for key, label in _DURATIONS.items()
    )
    return Table(
        "Alarms outside lesions, by duration",
        ("", "alarms", "per procedure", "per minute"),
        rows,
        "An alarm is a run of frames with a finding that shares no pixel with a visible lesion: "
        f"{100 * alarms['share_of_time']:.1f} % of the recorded time.",
    )


def _recordings(document: Mapping[str, Any]) -> Table:
    each = document["each"]
    rows = tuple(
        (
            row["name"],
            f"{row['recorded_s'] / 60:.1f}",
            f"{sum(lesion['hit_frames'] > 0 for lesion in row['lesions'])} of {len(row['lesions'])}",
            ", ".join(_figure(lesion["first_detection_s"], 2) for lesion in row["lesions"]),
            *(str(row["alarms"][key]) for key in _DURATIONS),
        )
        for row in each[:SHOWN_RECORDINGS]
    )
    left_out = len(each) - len(rows)
    return Table(
        "Recordings",
        ("", "min", "lesions found", "first detection, s", "alarms", ">= 0.5 s", ">= 1 s", ">= 2 s"),
        rows,
        f"{left_out} more are in report.json." if left_out else "",
    )


def _cells(part: Mapping[str, Any], name: str, digits: int) -> tuple[str, str]:
    """Return a figure and its interval."""
    low, high = part[f"{name}_ci95"]
    interval = "" if math.isnan(low) else f"[{_figure(low, digits)}, {_figure(high, digits)}]"
    return _figure(part[name], digits), interval


def _figure(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    return "infinite" if math.isinf(value) else f"{value:.{digits}f}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
