"""Figures of what a fault did to a live run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.harness import LiveRun, longest_gap_ms, off_spells, skipped

SETTLE_S = 0.5
"""A run is left alone for so long before and after it is hurt."""


@dataclass
class Figures:
    """The figures of one fault.

    Attributes:
        case: its name.
        received: pictures that the source gave; shown: those that reached the screen.
        longest_gap_ms: between two pictures on the screen, from the fault on to the end.
        skipped: pictures that were never shown, from the fault on.
        to_off_ms: of each time it was hurt, until a picture was shown without "AI ON".
        to_on_ms: of each time it was hurt, or mended where it does not mend itself, until "AI ON".
        wrong_pixels: changed outside markers, in all pictures; strangers: pictures that the source has not;
            disordered: pictures that came twice, or after a later one.
        restarts: of the worker.
        exit_status: of the run, which a signal ended.
        reasons: for "AI OFF", as shown.
        more: what only this case has.
    """

    case: str
    received: int = 0
    shown: int = 0
    longest_gap_ms: float = 0.0
    skipped: int = 0
    to_off_ms: list[float] = field(default_factory=list)
    to_on_ms: list[float] = field(default_factory=list)
    wrong_pixels: int = 0
    strangers: int = 0
    disordered: int = 0
    restarts: int = 0
    exit_status: int = 0
    reasons: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def sum_up(figures: Figures, run: LiveRun, hurt_s: float) -> Figures:
    """End the run with SIGTERM and fill in the figures from its screen and its report."""
    run.watch(SETTLE_S)
    figures.exit_status = run.end()
    report, measured = run.report, run.measured
    figures.received = report["counts"]["received"]
    figures.shown = report["counts"]["shown"]
    figures.restarts = report["worker"]["restarts"]
    figures.longest_gap_ms = longest_gap_ms(run.lines, from_s=hurt_s)
    figures.skipped = skipped(run.lines, from_s=hurt_s)
    figures.wrong_pixels = measured["wrong_pixels"]
    figures.strangers = measured["strangers"]
    figures.disordered = measured["disordered"]
    figures.reasons = sorted({reason for _, _, reason in off_spells(run.lines)})
    return figures


def reasons(run: LiveRun, from_s: float, to_s: float) -> list[str]:
    """List the reasons that the strip showed in a span of time, in order of appearance."""
    said = (line["reason"] for line in run.lines if from_s <= line["shown_s"] <= to_s)
    return list(dict.fromkeys(reason for reason in said if reason))
