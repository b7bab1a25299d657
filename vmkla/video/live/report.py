"""The report of a live run, written as report.json at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla import __version__
from vmkla.errors import Outcome
from vmkla.video.latency import LatencyStats
from vmkla.video.live.frame import AiState
from vmkla.video.live.network.watch import TOO_SLOW
from vmkla.video.live.tallies import Tallies

_LASTING_S = 0.5
"""Time for which the AI must be off at the end to count, seconds: one late result does not."""
_KEPT_UP = 0.95
"""Share of the run for which the AI must be on for the network to count as fast enough."""
_WATCHING = (AiState.ON, AiState.PAUSED)
"""States in which the network keeps up; in the second no markers are drawn, as was asked."""


@dataclass(frozen=True)
class LiveReport:
    """The result of ``run_live``; ``to_dict`` gives the content of report.json.

    Attributes:
        outcome: how the run ended.
        exit_status: exit status of the command.
        message: why the outcome is not ``"done"``; empty when it is.
        ended_by: what ended the run: ``"stopped"``, ``"closed"``, ``"source ended"``, ``"time is over"`` or
            ``"error"``.
        out_dir: folder of all outputs.
        outputs: output name to path relative to ``out_dir``.
        wall_s: duration of the display loop, seconds.
        received: number of frames that the source gave.
        dropped: cause to number of frames that were not shown.
        damaged: number of received frames in which the decoder concealed missing data.
        source_opened: how often the source was opened and gave a frame.
        tallies: delays, gaps and states; see ``Tallies.to_dict``.
        latency_ms: latency of the worker by stage.
        worker: number of restarts, and of rejected results by cause.
        markers_cleared: number of frames shown without the newest marker, by cause.
        events: number of events by kind.
        model, runtime, input, settings: what ran and how, as plain values.
        lesions: number of lesions; None where they are not known.
        recording: frames written and missed by stream; None when nothing was to be recorded.
        warnings: what the user should know though nothing failed.
    """

    outcome: Outcome
    exit_status: int
    message: str
    ended_by: str
    out_dir: Path
    outputs: dict[str, str]
    wall_s: float
    received: int
    dropped: dict[str, int]
    damaged: int
    source_opened: int
    tallies: dict[str, Any]
    latency_ms: dict[str, dict[str, float | None]]
    worker: dict[str, Any]
    markers_cleared: dict[str, int]
    events: dict[str, int]
    model: dict[str, Any]
    runtime: dict[str, Any]
    input: dict[str, Any]
    settings: dict[str, Any]
    lesions: int | None = None
    recording: dict[str, Any] | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def shown(self) -> int:
        """Number of the source's frames that reached the screen."""
        return int(self.tallies["shown"])

    @property
    def fps(self) -> float:
        """Frames shown per second of wall time."""
        return self.shown / self.wall_s if self.wall_s > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        tallies = dict(self.tallies)
        counts = {name: tallies.pop(name) for name in ("shown", "covered", "marked", "replaced")}
        return {
            "vmkla_version": __version__,
            "outcome": self.outcome,
            "exit_status": self.exit_status,
            "message": self.message,
            "ended_by": self.ended_by,
            "counts": {
                "received": self.received,
                **counts,
                "damaged": self.damaged,
                "source_opened": self.source_opened,
            },
            "dropped": self.dropped,
            "fps": round(self.fps, 3),
            "wall_s": round(self.wall_s, 3),
            **tallies,
            "latency_ms": self.latency_ms,
            "worker": self.worker,
            "lesions": self.lesions,
            "markers_cleared": self.markers_cleared,
            "events": self.events,
            "model": self.model,
            "runtime": self.runtime,
            "input": self.input,
            "settings": self.settings,
            "recording": self.recording,
            "outputs": self.outputs,
            "warnings": list(self.warnings),
        }


def too_slow(tallies: Tallies, result_ms: LatencyStats, max_staleness_ms: float) -> str:
    """Return how much too slow the network was and what helps; empty when it kept up.

    Args:
        tallies: counts of the run.
        result_ms: time from a frame's capture to its result.
        max_staleness_ms: option of the run. A result is in use until it is twice as old as a result takes, so
            each may take half of this.
    """
    on_s, whole_s = _watching_s(tallies), sum(tallies.ai_s.values())
    if not tallies.off_reasons[TOO_SLOW] or not result_ms.count or on_s > _KEPT_UP * whole_s:
        return ""
    return (
        f"the network is too slow for live mode here: a result takes {result_ms.percentile_ms(50):.0f} ms "
        f"(median), at most {max_staleness_ms / 2:.0f} ms are needed with --max-staleness-ms "
        f"{max_staleness_ms:g}. What helps: an INT8 file (vmkla calibrate), a smaller --model, more "
        "--threads, or a larger --max-staleness-ms"
    )


def what_is_missing(
    tallies: Tallies, received: int, dropped: dict[str, int], drop_budget: float, recording_stopped: str
) -> str:
    """Return one sentence on what a degraded run lacks; empty when it lacks nothing.

    Args:
        tallies: counts of the run.
        received: number of frames that the source gave.
        dropped: cause to number of frames that were not shown.
        drop_budget: fraction of the frames that may be dropped, 0 to 1.
        recording_stopped: why recording ended before the run; empty when it did not.
    """
    parts = []
    lost, whole = sum(dropped.values()), received + sum(dropped.values()) - dropped.get("not taken", 0)
    if not received:
        parts.append("the source gave no frame")
    elif lost > drop_budget * whole:
        causes = ", ".join(f"{count} {cause}" for cause, count in dropped.items() if count)
        parts.append(f"{lost} of {whole} frames were dropped ({causes}), the budget is {drop_budget:.1%}")
    status = tallies.status
    if tallies.shown and not _watching_s(tallies):
        parts.append(f"the AI was never on: {status.ai_reason if status else ''}")
    elif status is not None and status.ai not in _WATCHING and tallies.since_ai_changed_s > _LASTING_S:
        parts.append(f"the AI was off at the end: {status.ai_reason or status.ai.value}")
    if recording_stopped:
        parts.append(f"recording stopped: {recording_stopped}")
    return "; ".join(parts)


def _watching_s(tallies: Tallies) -> float:
    """Return for how long the network kept up, seconds, with or without markers on the screen."""
    return sum(tallies.ai_s[state] for state in _WATCHING)
