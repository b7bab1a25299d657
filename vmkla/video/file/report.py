"""The report of a run in file mode, written as report.json at its end."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla import __version__
from vmkla.errors import Outcome
from vmkla.video.latency import LatencyStats
from vmkla.video.media.decoding import VideoSource, how_often
from vmkla.video.media.frames import Problem, Source
from vmkla.video.media.sources import ImageSource

STAGES = ("decode", "preprocess", "inference", "postprocess", "track", "overlay", "write", "total")
_HASH_BLOCK_BYTES = 1 << 20


@dataclass
class Counts:
    """Counts of a run.

    Attributes:
        frames: number of frames written, or of images with a row.
        segmented: number of frames given to the network.
        with_finding: number of segmented frames with a finding.
        kept: number of frames kept from an interrupted run.
        paused: number of segmented frames without markers since their picture is poor.
        damaged: number of frames in which the decoder concealed missing data.
        unreadable: number of images that cannot be read.
        lost_packets: number of packets of a video that cannot be decoded.
        repaired_timestamps: number of time stamps that were missing or did not rise.
        timestamp_jumps: number of places where the time stamps start again.
        size_changes: number of places where the frame size changes.
    """

    frames: int = 0
    segmented: int = 0
    with_finding: int = 0
    kept: int = 0
    paused: int = 0
    damaged: int = 0
    unreadable: int = 0
    lost_packets: int = 0
    repaired_timestamps: int = 0
    timestamp_jumps: int = 0
    size_changes: int = 0


@dataclass
class Latencies:
    """Latency by stage, over the frames segmented in this run."""

    stages: dict[str, LatencyStats] = field(
        default_factory=lambda: {stage: LatencyStats() for stage in STAGES}
    )

    def add(self, latency_ms: dict[str, float]) -> None:
        """Add the latencies of one frame."""
        for stage, value_ms in latency_ms.items():
            self.stages[stage].add(value_ms)

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Return stage to p50, p95, p99, max and mean, ms."""
        return {stage: stats.to_dict() for stage, stats in self.stages.items() if stats.count}


@dataclass(frozen=True)
class SegmentReport:
    """The result of ``segment``; ``to_dict`` gives the content of report.json.

    Attributes:
        outcome: how the run ended.
        exit_status: exit status of the command.
        message: message of the error; empty without one.
        out_dir: folder of all outputs.
        outputs: output name to path relative to ``out_dir``.
        counts: counts of the run.
        findings: what was found, when and where; see ``FindingsSummary.to_dict``.
        wall_s: time from the first request of a frame to the last frame written, seconds.
        latency_ms: stage to p50, p95, p99, max and mean, ms.
        model, runtime, input, settings: what ran and how, as plain values.
        warnings: what the user should know though nothing failed.
        problems: parts of the source that could not be read.
    """

    outcome: Outcome
    exit_status: int
    message: str
    out_dir: Path
    outputs: dict[str, str]
    counts: Counts
    findings: dict[str, Any]
    wall_s: float
    latency_ms: dict[str, dict[str, float | None]]
    model: dict[str, Any]
    runtime: dict[str, Any]
    input: dict[str, Any]
    settings: dict[str, Any]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def fps(self) -> float:
        """Frames of this run per second."""
        made = self.counts.frames - self.counts.kept
        return made / self.wall_s if self.wall_s > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "vmkla_version": __version__,
            "outcome": self.outcome,
            "exit_status": self.exit_status,
            "message": self.message,
            "counts": vars(self.counts).copy(),
            "findings": self.findings,
            "fps": round(self.fps, 3),
            "wall_s": round(self.wall_s, 3),
            "latency_ms": self.latency_ms,
            "model": self.model,
            "runtime": self.runtime,
            "input": self.input,
            "settings": self.settings,
            "outputs": self.outputs,
            "warnings": list(self.warnings),
            "problems": [vars(problem).copy() for problem in self.problems],
        }


class FileHash(threading.Thread):
    """Computes the sha256 of a file in a thread beside the run.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(name="vmkla-hash", daemon=True)
        self._path = path
        self._stop_wanted = threading.Event()
        self._digest: str | None = None

    def run(self) -> None:
        """Read the file to its end, unless stopped."""
        digest = hashlib.sha256()
        try:
            with open(self._path, "rb") as file:
                while block := file.read(_HASH_BLOCK_BYTES):
                    if self._stop_wanted.is_set():
                        return
                    digest.update(block)
        except OSError:
            return  # the source itself reports the problems of the file
        self._digest = digest.hexdigest()

    def result(self, *, wait: bool) -> str | None:
        """Return the hash; None when it is not finished. With ``wait`` only when the file cannot be read."""
        if not wait:
            self._stop_wanted.set()
        self.join()
        return self._digest


def what_is_missing(source: Source, *, frames: int, damaged: int, copy: str = "") -> str:
    """Return one sentence on what of a source was not read after a pass; empty when it is complete.

    Args:
        source: after the pass.
        frames: number of frames that were read.
        damaged: number of these with missing data that the decoder had to conceal.
        copy: name of a video of one frame size that was written; empty without one.
    """
    problems = source.problems
    if not problems and not damaged:
        return ""
    if isinstance(source, VideoSource):
        parts = []
        if source.cut_off:
            parts.append(f"the file is cut off, {frames} frames before the cut were read")
        if source.lost_packets:
            parts.append(f"{source.lost_packets} packets could not be decoded")
        if damaged:
            parts.append(f"{damaged} frames are damaged")
        if source.size_changes:
            kept = f", and {copy} keeps the first one" if copy else ""
            parts.append(f"the frame size changes {how_often(source.size_changes)}{kept}")
        parts += [f"{problem.where} {problem.what}" for problem in source.combed]
        return f"{source.path} is not complete: {'; '.join(parts)}"
    others = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    named = source.named if isinstance(source, ImageSource) else source.total
    return f"{len(problems)} of {named} images cannot be read: {problems[0].where}{others}"
