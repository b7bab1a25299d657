"""Format the figures of benchmarks/live/faults.py as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import Table

BEGIN, END = "<!-- faults.py begins -->", "<!-- faults.py ends -->"
TITLES = {
    "delay": "Delays with nothing else running",
    "worker": "Faults of the network's process",
    "kills": "The worker killed in a row",
    "source": "Faults of the source",
    "record": "Recording cut off",
    "around": "Clients and clocks",
    "loop": "Ten minutes without a break",
    "soak": "Half an hour with everything on",
}
_COLUMNS = (
    "case", "shown / received", "skipped after it", "longest gap after it, ms", "to AI OFF, ms",
    "to AI ON, ms", "worker started again", "changed pixels", "status",
)  # fmt: skip
_READING = (
    "Shown / received: over the whole run. Skipped: pictures that never reached the screen, from the "
    "fault on. Longest gap: between two pictures on the screen, from the fault (of a source: from its "
    "return) on. To AI OFF: from the fault to the first picture shown without AI ON. To AI ON: from the "
    "fault, or from when its cause was gone where it does not go by itself. Of several times: median, "
    "then largest. Changed pixels: outside markers, in all pictures; a picture that the source does not "
    "have counts as one. Status: of the process, which SIGTERM ends with 143."
)


def section(parts: Mapping[str, Any]) -> str:
    """Format all parts as Markdown."""
    texts = [f"Written by `python benchmarks/live/faults.py`. {_READING}"]
    for name, part in parts.items():
        texts.append(_table(name, part).markdown())
    return "\n\n".join(texts)


def _table(name: str, part: Mapping[str, Any]) -> Table:
    table = Table(TITLES[name], _COLUMNS)
    for figures in part["figures"]:
        if "failed" in figures:
            table.add(figures["case"], f"FAILED: {figures['failed']}", *[""] * (len(_COLUMNS) - 2))
            continue
        table.add(
            figures["case"],
            f"{figures['shown']} / {figures['received']}",
            figures["skipped"],
            figures["longest_gap_ms"],
            _several(figures["to_off_ms"]),
            _several(figures["to_on_ms"]),
            figures["restarts"],
            figures["wrong_pixels"] + figures["strangers"],
            figures["exit_status"],
        )
    table.notes = [_when(part["when"]), *_notes(part["figures"])]
    return table


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for figures in rows:
        said = [f"{name}: {_plain(value)}" for name, value in figures.get("more", {}).items()]
        if figures.get("reasons"):
            said.append(f"AI OFF because of: {', '.join(figures['reasons'])}")
        if said:
            notes.append(f"- {figures['case']}: {'; '.join(said)}")
    return ["", *notes] if notes else []


def _when(when: Mapping[str, Any]) -> str:
    threads = when["threads"] or "all cores but one"
    short = ", short form" if when["short"] else ""
    return (
        f"{when['date']}, {when['cpu']}, {when['cores']} CPUs, load before it {when['load']:.2f}; "
        f"{when['model']}, threads {threads}, {when['source']}{short}."
    )


def _several(values: Sequence[float]) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    if len(ordered) == 1:
        return f"{ordered[0]:.0f}"
    return f"{ordered[len(ordered) // 2]:.0f}, {ordered[-1]:.0f}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)
