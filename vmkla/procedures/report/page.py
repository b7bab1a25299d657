"""Write ``procedure.html``: the report of a procedure as one file that needs no network and prints on A4."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from vmkla.files import write_whole
from vmkla.page import RESEARCH_USE, data_uri, facts_html, page_html
from vmkla.procedures.files import LESIONS, PAGE
from vmkla.procedures.report.gather import LASTING_S, LISTED, Procedure, gather
from vmkla.procedures.report.settings import settings_rows
from vmkla.procedures.report.spans import joined
from vmkla.procedures.report.stored import StoredLesion, read_still
from vmkla.procedures.report.timeline import timeline_html
from vmkla.procedures.report.times import clock

_SPANS_LISTED = 12
_STYLE = """
h1, p, li, td { overflow-wrap: anywhere } h2 { margin-top: 1.5em }
.timeline { width: 100%; display: block } .timeline text { font: 11px system-ui, sans-serif; fill: #222 }
.timeline .time { text-anchor: middle } .timeline .tick { stroke: #ccc; fill: none }
.lesion { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 12px }
.lesion { border-top: 1px solid #ddd; padding: .6em 0 }
.lesion h3 { flex-basis: 100%; margin: 0 } .lesion table { margin: 0; flex: 1 1 300px }
.lesion img { width: 100%; max-height: 300px; object-fit: contain; background: #222 }
.missing { border-left: 4px solid #b3261e; padding-left: .8em }
@page { size: A4; margin: 12mm }
@media print {
  body { font-size: 10pt; margin: 0; padding: 0; max-width: none }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  h2, h3, .ranking { break-after: avoid } .lesion, figure, tr, .timeline { break-inside: avoid }
  .timeline text { font-size: 14px } thead { display: table-header-group } th, td { padding: .15em .5em }
  .lesion figure { width: 190px } .lesion img { max-height: 190px }
}
"""


def write_page(folder: Path, document: dict[str, Any] | None = None) -> Procedure:
    """Write the page into the folder of a run over a video or of a live run.

    Args:
        folder: folder of the run.
        document: content of ``report.json``; None reads it.
    Returns:
        What the page shows.
    Raises:
        BadInputError: the folder is not of such a run, or a file cannot be read or written.
    """
    procedure = gather(folder, document)
    write_whole(folder / PAGE, render(procedure).encode(errors="backslashreplace"))
    return procedure


def render(procedure: Procedure) -> str:
    """Render the page; everything that comes from files is escaped."""
    name = _text(procedure.document, "input", "name")
    title = f"Procedure {name}" if name else "Procedure"
    parts = [f"<h1>{escape(title)}</h1>", RESEARCH_USE, facts_html(_facts(procedure))]
    if procedure.missing:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in procedure.missing)
        parts.append(f'<div class="missing"><b>What is missing</b><ul>{items}</ul></div>')
    warnings = procedure.document.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        parts.append(f'<p class="note">note: {escape(str(warning))}</p>')
    parts += ["<h2>Time line</h2>", timeline_html(procedure), "<h2>Lesions</h2>", _ranking(procedure)]
    parts += [_card(procedure, lesion) for lesion in procedure.shown]
    if procedure.listed:
        parts.append(_table(procedure))
    parts += ["<h2>Model and settings</h2>", facts_html(settings_rows(procedure.document))]
    return page_html(title, parts, _STYLE)


def _facts(procedure: Procedure) -> Iterator[tuple[str, str]]:
    document = procedure.document
    outcome, message = _text(document, "outcome"), _text(document, "message")
    yield "run", ": ".join(part for part in (outcome, message) if part) or "not known"
    if procedure.live:
        yield "live source", _text(document, "input", "kind") or "not known"
    else:
        yield "video, sha256", _text(document, "input", "sha256") or "not known"
    yield "from, to", f"{clock(procedure.first_s)}, {clock(procedure.last_s)}"
    found = f"{procedure.with_finding} with a finding"
    if procedure.live:
        shown = _text(document, "counts", "shown") or "not known how many"
        yield "frames", f"{shown} shown, {procedure.segmented} seen by the network, {found}"
    else:
        yield "frames", f"{procedure.frames}, {procedure.segmented} of them segmented, {found}"
    yield "lesions", _count(procedure)
    if procedure.poor_s is None:
        yield "picture", "not known"
    else:
        poor = [f"{reason} {time_s:.1f} s" for reason, time_s in sorted(procedure.poor_s.items())]
        yield "poor pictures", ", ".join(poor) or "none"
        yield "scene cuts", str(procedure.cuts)
    yield "operating point", _point(document)


def _count(procedure: Procedure) -> str:
    if not procedure.lesions:
        return "not known" if procedure.lesions is None else "0"
    return (
        f"{procedure.lesions} findings over time, also false ones; {procedure.lasting} of them seen for "
        f"at least {LASTING_S:g} s"
    )


def _point(document: dict[str, Any]) -> str:
    names = {
        "threshold": "threshold",
        "peak": "peak",
        "min_fraction": "smallest area, share of the field of view",
    }
    values = {name: _text(document, "settings", name) for name in names}
    return "; ".join(f"{names[name]}: {value}" for name, value in values.items() if value) or "not known"


def _ranking(procedure: Procedure) -> str:
    if procedure.lesions is None:
        return "<p>Not known.</p>"
    if not procedure.lesions:
        return "<p>None: no finding reached the operating point.</p>"
    shown = len(procedure.shown)
    which = "All lesions" if shown == procedure.lesions else f"{shown} of {procedure.lesions} lesions"
    return (
        f'<p class="note ranking">{which}, in the order of time seen times peak probability. A lesion is a '
        "finding over time, also a false one. Its still is the sharpest, largest one with the least glare."
        "</p>"
    )


def _card(procedure: Procedure, lesion: StoredLesion) -> str:
    stills = "".join(_figures(procedure, lesion))
    rows = "".join(
        f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in _card_facts(procedure, lesion)
    )
    return (
        f'<section class="lesion" id="lesion-{lesion.id}"><h3>Lesion {lesion.id}</h3>{stills}'
        f'<table class="facts">{rows}</table></section>'
    )


def _figures(procedure: Procedure, lesion: StoredLesion) -> Iterator[str]:
    still = lesion.still
    if still is None:
        return
    at = "" if still.pts_s is None else ", " + _time(procedure, still.pts_s)
    for kind, name in (("clean", still.image), ("marked", still.marked)):
        jpeg = read_still(procedure.folder, name)
        if jpeg is not None:
            picture = f'<img alt="lesion {lesion.id}, {kind}" src="{data_uri(jpeg, "jpeg")}">'
            yield f"<figure>{picture}<figcaption>{kind}{at}</figcaption></figure>"


def _card_facts(procedure: Procedure, lesion: StoredLesion) -> Iterator[tuple[str, str]]:
    """Yield names and values, both HTML."""
    # Gaps of single frames would fill the card, so they are left to lesions.jsonl.
    spans = joined(lesion.spans, 0.5)
    times = [
        _time(procedure, start_s) + (f" to {clock(end_s)}" if end_s > start_s else "")
        for start_s, end_s in spans[:_SPANS_LISTED]
    ]
    if len(spans) > _SPANS_LISTED:
        times.append(f"and {len(spans) - _SPANS_LISTED} more")
    yield "seen", "<br>".join(times)
    yield "in all", f"{lesion.seen_s:.1f} s, {lesion.frames} frame{'s' * (lesion.frames != 1)}"
    yield "peak probability", f"{lesion.peak_probability:.3f}"
    yield "largest area", f"{100 * lesion.largest_area_fraction:.2f} % of the frame"
    if lesion.first_marker_after_s is not None:
        yield "first marker", f"{lesion.first_marker_after_s:.2f} s after its first finding"
    if lesion.class_index is not None:
        yield "class", escape(_class_name(procedure.document, lesion.class_index))
    if lesion.joined:
        more = f" and {len(lesion.joined) - _SPANS_LISTED} more" if len(lesion.joined) > _SPANS_LISTED else ""
        yield "also drawn as", ", ".join(f"{number}" for number in lesion.joined[:_SPANS_LISTED]) + more
    if lesion.still is None or read_still(procedure.folder, lesion.still.image) is None:
        yield "still", "missing"


def _table(procedure: Procedure) -> str:
    further = (procedure.lesions or 0) - len(procedure.shown)
    left_out = further - len(procedure.listed)
    columns = ("lesion", "seen", "to", "in all, s", "frames", "peak", "largest area, %", "still")
    head = "".join(f"<th>{name}</th>" for name in columns)
    rows = []
    for lesion in procedure.listed:
        still = "-" if lesion.still is None else f'<a href="{lesion.still.image}">{lesion.still.image}</a>'
        cells = (
            str(lesion.id),
            _time(procedure, lesion.first_s),
            clock(lesion.last_s),
            f"{lesion.seen_s:.1f}",
            str(lesion.frames),
            f"{lesion.peak_probability:.3f}",
            f"{100 * lesion.largest_area_fraction:.2f}",
            still,
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    note = f"{left_out} lower ones than these {LISTED} are in {LESIONS} only." if left_out else ""
    return (
        f"<h2>Further lesions: {further}</h2><p>{note}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _time(procedure: Procedure, time_s: float) -> str:
    return procedure.link(time_s, clock(time_s))


def _class_name(document: dict[str, Any], class_index: int) -> str:
    model = document.get("model")
    names = model.get("class_names") if isinstance(model, dict) else None
    known = isinstance(names, list) and 0 <= class_index < len(names)
    return f"{class_index}, {names[class_index]}" if known and names else str(class_index)


def _text(document: dict[str, Any], *path: str) -> str:
    """Write a value of the report for people; empty where it is missing."""
    value: Any = document
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
