"""Draw the time line of a procedure as an SVG picture."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from vmkla.procedures.report.gather import CUTS, FINDINGS, JUMPS, OTHERS, PICTURE, POOR_PICTURE, Procedure
from vmkla.procedures.report.live_events import AI_OFF, NO_SIGNAL
from vmkla.procedures.report.spans import Span
from vmkla.procedures.report.times import clock

_WIDTH, _LEFT, _RIGHT = 1000, 110, 20
"""Width of the picture and of its margins, in its own units."""
_LANE, _BAR = 15, 9
"""Height of a lane and of the bars in it."""
_LEAST = 1.5
"""Width of the shortest bar: a moment in half an hour would not be seen."""
_TICKS = 10
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18000)
_COLOURS = {
    FINDINGS: "#1b7f3b",
    PICTURE["black"]: "#222",
    PICTURE["frozen"]: "#2563b0",
    POOR_PICTURE: "#a66a00",
    AI_OFF: "#b3261e",
    NO_SIGNAL: "#222",
    CUTS: "#b3261e",
    JUMPS: "#b3261e",
    OTHERS: "#7a8f80",
}
_LESION = "#1b7f3b"


def timeline_html(procedure: Procedure) -> str:
    """Render the time line: lanes for poor pictures and cuts, and one for each lesion that is shown."""
    lanes = procedure.lanes.spans
    first_s = procedure.first_s
    span_s = max(procedure.last_s - first_s, 0.1)
    height = _LANE * (len(lanes) + 2)

    def across(time_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (time_s - first_s) / span_s

    parts = [
        f'<svg class="timeline" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="time line">',
        *_axis(first_s, span_s, height),
    ]
    for place, (name, spans) in enumerate(lanes.items()):
        top = _LANE * place + (_LANE - _BAR) / 2
        label = f'<text x="0" y="{top + _BAR - 1:g}">{escape(name)}</text>'
        is_lesion = name.startswith("lesion ")
        parts.append(f'<a href="#{name.replace(" ", "-")}">{label}</a>' if is_lesion else label)
        parts.append(f'<g fill="{_COLOURS.get(name, _LESION)}">')
        for span in spans:
            left = across(span[0])
            width = max(_LEAST, across(span[1]) - left)
            bar = f'<rect x="{left:.1f}" y="{top:g}" width="{width:.1f}" height="{_BAR}"/>'
            parts.append(procedure.link(span[0], f"{bar}<title>{_named(name, span)}</title>"))
        parts.append("</g>")
    parts.append("</svg>")
    return "\n".join(parts) + f'<p class="note">{escape(_note(procedure))}</p>'


def _named(name: str, span: Span) -> str:
    start_s, end_s = span
    until = f" to {clock(end_s)}" if end_s > start_s else ""
    return escape(f"{name}, {clock(start_s)}{until}")


def _axis(first_s: float, span_s: float, height: float) -> Iterator[str]:
    """Draw a line and a time at round times."""
    step_s = next((step for step in _STEPS_S if span_s / step <= _TICKS), span_s / _TICKS)
    tick = -int(-first_s // step_s)
    bottom = height - 1.2 * _LANE
    while tick * step_s <= first_s + span_s * 1.0001:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (tick * step_s - first_s) / span_s
        yield f'<path class="tick" d="M{x:.1f} 0V{bottom:g}"/>'
        yield f'<text class="time" x="{x:.1f}" y="{height - 3}">{clock(tick * step_s)}</text>'
        tick += 1


def _note(procedure: Procedure) -> str:
    note = "Minutes and seconds. Short spans are drawn wider than they are."
    if procedure.lanes.joined_s:
        note += f" Spans less than {procedure.lanes.joined_s:.3g} s apart are drawn as one."
    if procedure.has_video:
        note += " A span leads to its place in the video."
    return note
