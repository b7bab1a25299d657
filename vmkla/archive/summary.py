"""Write ``summary.html`` and ``summary.csv`` of a batch from its records."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vmkla.archive.records import STATUS, PieceRecord
from vmkla.files import write_whole
from vmkla.page import RESEARCH_USE, facts_html, page_html
from vmkla.procedures.files import PAGE
from vmkla.safe_text import escape as printable

SUMMARY_PAGE, SUMMARY_TABLE = "summary.html", "summary.csv"
_PIECES_SHOWN, _MESSAGES_SHOWN, _WORKERS_SHOWN = 2000, 100, 200
_FACTS = ("kind", "frames", "segmented", "with_finding", "regions", "lesions", "alarms", "recorded_s")
_COLUMNS = (
    "source",
    "outcome",
    *_FACTS,
    "seconds",
    "attempts",
    "worker",
    "folder",
    "piece",
    "message",
    "hint",
)
_SHOWN = ("source", "outcome", "minutes", "frames", "lesions", "regions", "alarms a minute", "message")
_STYLE = "h2 { margin-top: 1.5em } td { overflow-wrap: anywhere } .failed td { background: #fbe9e7 }"


@dataclass
class Worked:
    """Work of one worker.

    Attributes:
        pieces: number of published pieces.
        frames: number of their frames.
        seconds: time that they took.
    """

    pieces: int = 0
    frames: int = 0
    seconds: float = 0.0


@dataclass
class BatchSummary:
    """Sums over the records of a batch.

    Attributes:
        outcomes: outcome -> number of pieces.
        frames, regions, lesions, alarms: numbers over all published pieces.
        recorded_s: recorded time of the videos, without pauses, seconds.
        workers: name -> its work.
        messages: message of failed pieces -> their number; sources are left out of it.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    regions: int = 0
    lesions: int = 0
    alarms: int = 0
    recorded_s: float = 0.0
    workers: dict[str, Worked] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)

    @property
    def alarms_per_minute(self) -> float | None:
        """Stretches of frames with a finding, in a minute of video; None without a video."""
        return 60 * self.alarms / self.recorded_s if self.recorded_s > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "pieces": dict(sorted(self.outcomes.items())),
            "frames": self.frames,
            "hours": round(self.recorded_s / 3600, 4),
            "regions": self.regions,
            "lesions": self.lesions,
            "alarms_per_minute": None if self.alarms_per_minute is None else round(self.alarms_per_minute, 3),
        }


def summarise(records: Iterable[PieceRecord]) -> BatchSummary:
    """Add up the records of a batch."""
    summary = BatchSummary()
    for record in records:
        summary.outcomes[record.outcome] += 1
        if record.outcome == "failed":
            name = record.source.rsplit("/", 1)[-1]
            summary.messages[record.message.replace(record.source, "...").replace(name, "...")] += 1
            continue
        frames = _number(record, "frames")
        summary.frames += int(frames)
        summary.regions += int(_number(record, "regions"))
        summary.lesions += int(_number(record, "lesions"))
        summary.alarms += int(_number(record, "alarms"))
        summary.recorded_s += _number(record, "recorded_s")
        worked = summary.workers.setdefault(record.worker, Worked())
        worked.pieces += 1
        worked.frames += int(frames)
        worked.seconds += record.seconds
    return summary


def write_summary(folder: Path, records: Sequence[PieceRecord]) -> BatchSummary:
    """Write ``summary.html`` and ``summary.csv``.

    Args:
        folder: folder of the batch.
        records: its records.
    Raises:
        BadInputError: the files cannot be written.
    """
    summary = summarise(records)
    write_whole(folder / SUMMARY_TABLE, _table(records).encode(errors="backslashreplace"), durable=False)
    page = _render(summary, records).encode(errors="backslashreplace")
    write_whole(folder / SUMMARY_PAGE, page, durable=False)
    return summary


def _number(record: PieceRecord, name: str) -> float:
    value = record.facts.get(name)
    return value if isinstance(value, int | float) else 0


def _table(records: Sequence[PieceRecord]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for record in records:
        values = vars(record) | {name: record.facts.get(name) for name in _FACTS}
        writer.writerow([_cell(values[name]) for name in _COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> str:
    """Return the text of a cell; one that a spreadsheet would compute is quoted."""
    text = "" if value is None else printable(str(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not isinstance(value, int | float) else text


def _render(summary: BatchSummary, records: Sequence[PieceRecord]) -> str:
    parts = ["<h1>Batch</h1>", RESEARCH_USE, facts_html(_facts(summary))]
    if summary.messages:
        failures = summary.messages.most_common(_MESSAGES_SHOWN)
        rows = ((str(count), escape(text)) for text, count in failures)
        parts += ["<h2>Failures</h2>", _html_table(("pieces", "message"), rows)]
    if summary.workers:
        workers = map(_worker, sorted(summary.workers.items())[:_WORKERS_SHOWN])
        parts += [
            "<h2>Workers</h2>",
            _html_table(("worker", "pieces", "frames", "frames a second"), workers),
        ]
    shown = sorted(records, key=lambda record: record.outcome != "failed")[:_PIECES_SHOWN]
    parts += ["<h2>Pieces</h2>", _html_table(_SHOWN, map(_piece, shown))]
    if len(records) > len(shown):
        parts.append(f"<p>{len(shown)} of {len(records)} pieces; {SUMMARY_TABLE} and {STATUS} have all.</p>")
    return page_html("Batch", parts, _STYLE)


def _facts(summary: BatchSummary) -> Iterable[tuple[str, str]]:
    yield "pieces", ", ".join(f"{count} {name}" for name, count in sorted(summary.outcomes.items())) or "none"
    yield "hours of video", f"{summary.recorded_s / 3600:.2f}"
    yield "frames and images", str(summary.frames)
    yield "findings", f"{summary.regions} regions, {summary.lesions} lesions"
    rate = summary.alarms_per_minute
    yield "alarms a minute", "-" if rate is None else f"{rate:.2f}"


def _piece(record: PieceRecord) -> Sequence[str]:
    facts, name = record.facts, escape(printable(record.source))
    if record.folder is not None:
        page = f"{record.folder}/{PAGE if facts.get('kind') == 'video' else ''}"
        name = f'<a href="{escape(quote(page))}">{name}</a>'
    recorded_s = _number(record, "recorded_s")
    rate = f"{60 * _number(record, 'alarms') / recorded_s:.2f}" if recorded_s > 0 else ""
    minutes = f"{recorded_s / 60:.1f}" if recorded_s > 0 else ""
    counts = [
        str(facts[key]) if facts.get(key) is not None else "" for key in ("frames", "lesions", "regions")
    ]
    message = " ".join(part for part in (record.message, record.hint) if part)
    return name, record.outcome, minutes, *counts, rate, escape(printable(message))


def _worker(pair: tuple[str, Worked]) -> Sequence[str]:
    name, each = pair
    rate = f"{each.frames / each.seconds:.2f}" if each.seconds > 0 else ""
    return escape(name), str(each.pieces), str(each.frames), rate


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table; the cells are HTML."""
    lines = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{''.join(lines)}</table>"
