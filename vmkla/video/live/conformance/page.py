"""Present a conformance report: tables for the terminal, and one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from vmkla.evaluation.html import table_html
from vmkla.evaluation.tables import Table
from vmkla.page import page_html

_PERCENTILES = ("p50", "p95", "p99", "max")
_MEANING = (
    "Limits after FDA De Novo DEN200055 and 21 CFR 876.1520(b)(2). Video delay: from the frame being "
    "complete in memory to the display buffer being handed over. Marker delay: from the frame being complete "
    "in memory to the first frame handed over with the marker that was computed from it. What a camera, "
    "a capture card and a display add before and after is not in these figures."
)


def conformance_tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Return the figures of a conformance report as tables.

    Args:
        document: what ``run_conformance`` returns.
    """
    yield _verdict(document)
    yield _delays(document)
    yield _frames(document)


def conformance_page(document: Mapping[str, Any]) -> str:
    """Return ``conformance.html``, a page that needs no other file.

    Args:
        document: what ``run_conformance`` returns.
    """
    passed = document["passed"]
    parts = ["<h1>Live mode on this machine</h1>", f"<p><b>{'passed' if passed else 'EXCEEDED'}</b></p>"]
    parts += [f'<p class="note">note: {escape(line)}</p>' for line in document["warnings"]]
    parts += [table_html(table) for table in (*conformance_tables(document), *_circumstances(document))]
    parts.append(f"<p>{_MEANING}</p><p>Research use, not a medical device.</p>")
    return page_html("Conformance of vmkla live", parts)


def _verdict(document: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            f"{check['name']}, {check['phase']}",
            _number(check["measured"]),
            _number(check["limit"]),
            str(check["of"]),
            "passed" if check["passed"] else "EXCEEDED" if check["of"] else "NOTHING TO MEASURE",
        )
        for check in document["checks"]
    )
    return Table("Limits", ("", "measured", "at most", "of", ""), rows)


def _delays(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, key in (("video delay", "video_delay_ms"), ("marker delay", "marker_delay_ms")):
        for phase, seen in document["phases"].items():
            first = seen[f"first_{key}"]
            cells = [_number(seen[key][percentile]) for percentile in _PERCENTILES]
            rows.append((f"{name}, {phase}", *cells, _number(first)))
    return Table("Delays, ms", ("", *_PERCENTILES, "the first one"), tuple(rows))


def _frames(document: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            phase,
            str(seen["shown"]),
            str(seen["marked"]),
            str(seen["ai_on"]),
            _number(seen["gap_ms"]["max"]),
            str(seen["wrong_pictures"]),
        )
        for phase, seen in document["phases"].items()
    )
    columns = ("", "shown", "with a marker", "with AI ON", "longest gap, ms", "with changed pixels")
    known = (
        "Every frame was compared with the source's, decoded beforehand."
        if document["pictures_known"]
        else ""
    )
    return Table("Frames", columns, rows, known)


def _circumstances(document: Mapping[str, Any]) -> Iterator[Table]:
    for title, key in (("Machine", "machine"), ("Power", "power"), ("Artefacts, sha256", "artefacts")):
        values = document[key] or {"": "not reported by this machine"}
        yield Table(title, ("", ""), tuple((name, _text(value)) for name, value in values.items()))
    yield Table(
        "Run",
        ("", ""),
        (
            ("begun", document["begun"]),
            ("vmkla", document["vmkla_version"]),
            *((name.replace("_", " "), _text(value)) for name, value in document["plan"].items()),
        ),
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
