"""Check live mode on this machine: delays and pixels, measured at the display buffer.

The limits are those of the first device of this kind that a regulator accepted: at most 5.75 ms of added
video delay, markers within 120 ms, identical pixels outside markers (FDA De Novo DEN200055, 21 CFR
876.1520(b)(2)).
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from vmkla import __version__
from vmkla.errors import UsageError, VmklaError
from vmkla.files import file_sha256
from vmkla.native import find_library
from vmkla.runner import Runner
from vmkla.video.cancellation import Cancellation
from vmkla.video.live.conformance.measuring import Measured, MeasuringScreen
from vmkla.video.live.conformance.power import power_mode
from vmkla.video.live.frame import AiState
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.run import run_live
from vmkla.video.live.screen import Screen, Shown
from vmkla.video.live.sources.capture import Capture
from vmkla.video.media.address import LiveAddress
from vmkla.video.media.decoding import VideoSource

WARM, AFTER_IDLE = "warm", "after idle"
_SETTLING, _IDLE, _OVER = "settling", "idle", "over"
_SETTLE_S = 2.0
_AFTER_IDLE_S = 15.0
_AI_ON_S = 60.0
_POLL_S = 0.05
_KNOWN_MAX = 20_000


@dataclass(frozen=True)
class ConformanceLimits:
    """Limits for each measured phase.

    Attributes:
        video_delay_p99_ms: 99th percentile of the time from a frame being complete in memory to its display
            buffer being handed over.
        marker_delay_p95_ms: 95th percentile of the time from a frame being complete in memory to the first
            frame handed over with its marker.
        uncovered_percent: share of frames without "AI ON", percent. A result that comes too late is never
            drawn, so no marker's delay shows it: as many may be late as the percentile of the marker delay
            leaves out.
        wrong_pixels: number of pixels outside markers that are not the source's, over all frames.
    """

    video_delay_p99_ms: float = 5.75
    marker_delay_p95_ms: float = 120.0
    uncovered_percent: float = 5.0
    wrong_pixels: int = 0


@dataclass(frozen=True)
class ConformancePlan:
    """Durations of a measurement.

    Attributes:
        duration_s: first phase, with frames all the time, after the AI is on, seconds.
        idle_s: pause without frames, as between two patients, seconds; 0 leaves it and the next phase out.
        after_idle_s: phase with frames after the pause, seconds; None uses ``duration_s``, at most 15.
    """

    duration_s: float = 60.0
    idle_s: float = 60.0
    after_idle_s: float | None = None

    def __post_init__(self) -> None:
        if self.after_idle_s is None:
            object.__setattr__(self, "after_idle_s", min(self.duration_s, _AFTER_IDLE_S))
        assert self.after_idle_s is not None
        if self.duration_s <= 0 or self.idle_s < 0 or self.after_idle_s <= 0:
            raise UsageError(
                f"nothing to measure in {self.duration_s:g} s, {self.idle_s:g} s idle and "
                f"{self.after_idle_s:g} s after it"
            )

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases to which the limits apply."""
        return (WARM, AFTER_IDLE) if self.idle_s else (WARM,)


def run_conformance(
    load: Callable[[], Runner],
    address: LiveAddress,
    options: LiveOptions,
    cancel: Cancellation,
    *,
    plan: ConformancePlan,
    machine: Mapping[str, Any],
    window: Screen | None = None,
    progress: Callable[[str], None] = lambda phase: None,
) -> dict[str, Any]:
    """Run live mode unchanged, and compare what reaches the display buffer with the limits.

    Args:
        load: loads the runner, in a process of its own; picklable.
        address: address of the source; a file is played in a loop.
        options: options of the run.
        cancel: ends the measurement early.
        plan: durations.
        machine: description of this machine, for the report.
        window: screen that shows the frames meanwhile; None only composes the display buffer.
        progress: called with the name of each phase when it begins.
    Returns:
        Plain values, for JSON; ``passed`` is whether all limits were kept.
    Raises:
        VmklaError: the AI never came on, or the run ended before everything was measured.
    """
    known, source_note = _known_frames(address)
    screen = _PhasedScreen(window, known=known)
    script = _Script(screen, plan, cancel, progress)
    begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
    script.start()
    try:
        report = run_live(load, address, options, cancel, screen=screen, make_capture=script.make_capture)
    finally:
        script.end()
    measured = {name: screen.phases[name] for name in plan.phases if name in screen.phases}
    if script.trouble or len(measured) < len(plan.phases):
        raise VmklaError(script.trouble or "the run ended before all was measured")
    checks = check_phases(measured, ConformanceLimits(), known=known is not None)
    run = report.to_dict()
    return {
        "vmkla_version": __version__,
        "begun": begun,
        "passed": all(check["passed"] for check in checks),
        "checks": checks,
        "phases": {name: phase.to_dict() for name, phase in measured.items()},
        "plan": asdict(plan),
        "machine": dict(machine),
        "power": power_mode(),
        "artefacts": _artefacts(run, address),
        "pictures_known": known is not None,
        "warnings": [*_warnings(measured), *source_note, *run.get("warnings", [])],
        "run": run,
    }


class _PhasedScreen(MeasuringScreen):
    """Remembers whether the AI is on, for the script."""

    ai_on = False

    def show(self, shown: Shown) -> None:
        """See ``MeasuringScreen``."""
        super().show(shown)
        self.ai_on = shown.status.ai is AiState.ON


class _Script(threading.Thread):
    """Leads a run through its phases from a thread of its own."""

    def __init__(
        self,
        screen: _PhasedScreen,
        plan: ConformancePlan,
        cancel: Cancellation,
        progress: Callable[[str], None],
    ) -> None:
        super().__init__(name="vmkla-conformance", daemon=True)
        self._screen = screen
        self._plan = plan
        self._cancel = cancel
        self._progress = progress
        self._ended = threading.Event()
        self._capture: Capture | None = None
        self.trouble = ""

    def make_capture(self, *args: Any, **settings: Any) -> Capture:
        """Create the run's source, which this script can pause."""
        self._capture = Capture(*args, **settings)
        return self._capture

    def run(self) -> None:
        """Go through the phases, then end the run."""
        self._enter(_SETTLING)
        if self._wait_for_ai():
            self._wait(_SETTLE_S)
            self._enter(WARM)
            self._wait(self._plan.duration_s)
            if self._plan.idle_s:
                self._enter(_IDLE)
                self._hold(True)
                self._wait(self._plan.idle_s)
                self._enter(AFTER_IDLE)
                self._hold(False)
                self._wait(self._plan.after_idle_s or 0.0)
            self._enter(_OVER)
        if not self._ended.is_set():
            self._cancel.stop()

    def end(self) -> None:
        """End the script after the run."""
        self._ended.set()
        self.join()

    def _enter(self, phase: str) -> None:
        if not self._stopped():
            self._screen.phase = phase
            self._progress(phase)

    def _hold(self, held: bool) -> None:
        if self._capture is not None:
            self._capture.held = held

    def _wait_for_ai(self) -> bool:
        ends_s = time.monotonic() + _AI_ON_S
        while not self._screen.ai_on:
            if self._stopped():
                return False
            if time.monotonic() > ends_s:
                self.trouble = f"the AI did not come on within {_AI_ON_S:g} s"
                return False
            time.sleep(_POLL_S)
        return True

    def _wait(self, seconds: float) -> None:
        ends_s = time.monotonic() + seconds
        while (left_s := ends_s - time.monotonic()) > 0 and not self._stopped():
            self._ended.wait(min(_POLL_S, left_s))

    def _stopped(self) -> bool:
        return self._ended.is_set() or self._cancel.is_set()


def check_phases(
    measured: Mapping[str, Measured], limits: ConformanceLimits, *, known: bool
) -> list[dict[str, Any]]:
    checks = []
    for phase, seen in measured.items():
        video, marker = seen.video_delay_ms, seen.marker_delay_ms
        uncovered = 100 * (seen.shown - seen.ai_on) / max(1, seen.shown)
        figures = [
            ("video delay p99, ms", video.percentile_ms(99), limits.video_delay_p99_ms, video.count),
            ("marker delay p95, ms", marker.percentile_ms(95), limits.marker_delay_p95_ms, marker.count),
            ("pictures without AI ON, %", uncovered, limits.uncovered_percent, seen.shown),
            ("pixels changed outside markers", seen.wrong_pixels, limits.wrong_pixels, seen.shown),
            ("pictures out of order", seen.disordered, 0, seen.shown),
        ]
        if known:
            figures.append(("pictures that the source does not have", seen.strangers, 0, seen.shown))
        for name, value, limit, count in figures:
            checks.append({"name": name, "phase": phase, "measured": value if count else None, "limit": limit,
                           "of": count, "passed": count > 0 and value <= limit})  # fmt: skip
    return checks


def _warnings(measured: Mapping[str, Measured]) -> list[str]:
    warnings = []
    for phase, seen in measured.items():
        if not seen.marked:
            warnings.append(f"{phase}: nothing was found in any frame, so no marker's pixels were checked")
    return warnings


def _known_frames(address: LiveAddress) -> tuple[frozenset[int] | None, list[str]]:
    """Return the crc32 of all frames of a file, read by file mode's reader, and notes for the user."""
    if address.kind != "file":
        return None, ["the source's frames are not known beforehand: they are taken as captured"]
    known = set()
    for frame in VideoSource(Path(address.target), deinterlace="no").frames():
        known.add(zlib.crc32(np.ascontiguousarray(frame.rgb).data))
        if len(known) > _KNOWN_MAX:
            return None, [f"the source has more than {_KNOWN_MAX} frames: they are taken as captured"]
    return frozenset(known), []


def _artefacts(run: Mapping[str, Any], address: LiveAddress) -> dict[str, Any]:
    """Return the hashes of model, weights, library and source."""
    library = find_library()
    return {
        "model": run.get("model", {}).get("sha256"),
        "weights": run.get("model", {}).get("weights_sha256"),
        "cpu_library": file_sha256(library) if library.is_file() else None,
        "source": file_sha256(Path(address.target)) if address.kind == "file" else None,
    }
