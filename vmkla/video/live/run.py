"""Run live mode: show a source on a screen, beside processes whose faults do not disturb it.

The display loop runs in the caller's thread. The network, the recorder and the monitor page each have a
process of their own and get frames through shared memory after these were shown.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Protocol

from vmkla.allocator import keep_freed_memory
from vmkla.errors import DegradedError, ErrorReport, StoppedError, UsageError, VmklaError
from vmkla.folders import locked_folder
from vmkla.names import Names
from vmkla.procedures.files import EVENTS, PAGE, RESULTS
from vmkla.runner import Runner
from vmkla.video.cancellation import Cancellation
from vmkla.video.live.events import EventLog
from vmkla.video.live.folder import FRAMES, RECORDING, REPLACED, LiveFolder, open_folder
from vmkla.video.live.frame import LiveResult
from vmkla.video.live.loop import DisplayLoop
from vmkla.video.live.markers.live_markers import LiveMarkers
from vmkla.video.live.markers.marker_board import MarkerBoard
from vmkla.video.live.monitor.process import Monitor
from vmkla.video.live.monitor.status import STATUS_CAPACITY_BYTES
from vmkla.video.live.monitor.status_writer import StatusWriter
from vmkla.video.live.network.supervisor import Supervisor, SupervisorLimits
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.priority import KEPT_BYTES, display_first, fast_thread_switches, interrupts_blocked
from vmkla.video.live.procedure import LiveProcedure
from vmkla.video.live.recording.recorder import Recorder
from vmkla.video.live.report import LiveReport, too_slow, what_is_missing
from vmkla.video.live.screen import FileScreen, Screen
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import FrameRing
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.tallies import Tallies
from vmkla.video.media.address import LiveAddress

__all__ = ["LiveOptions", "LiveReport", "run_live"]

_RAW_SLOTS, _SHOWN_SLOTS = 8, 8


class MakeCapture(Protocol):
    """Creates the reader of the source; tests and measurements pass their own."""

    def __call__(self, address: LiveAddress, events: EventLog, *, loop: bool) -> Capture: ...


def run_live(
    load: Callable[[], Runner],
    address: LiveAddress,
    options: LiveOptions,
    cancel: threading.Event | None = None,
    *,
    screen: Screen | None = None,
    make_capture: MakeCapture = Capture,
    limits: SupervisorLimits | None = None,
    notify: Callable[[str], None] = lambda message: None,
) -> LiveReport:
    """Show a source live, with markers, until it ends or somebody ends it.

    Writes ``events.jsonl``, ``results.jsonl``, ``report.json``, and at the end ``lesions.jsonl`` and
    ``procedure.html``, when asked ``recording/``, into ``options.out_dir``. The video starts at once and
    continues without markers until the network is ready and whenever it fails.

    Args:
        load: loads the runner, in a process of its own; picklable.
        address: address of the source, see ``parse_address``.
        options: options of the run.
        cancel: event that ends the run when set; ``stop_on_signals`` makes one that signals set.
        screen: screen for the frames, closed at the end; a window needs the main thread. None writes what
            would be shown to ``frames.jsonl``, see ``FileScreen``.
        make_capture: creates the reader of the source.
        limits: time limits of the worker; ``max_staleness_s`` is always that of ``options``.
        notify: called with messages for the user while the run lasts.
    Returns:
        The report, also when ``cancel`` was set without a signal (``outcome`` is then ``"interrupted"``).
    Raises:
        DegradedError: the run ended, but too many frames were dropped, the AI was off at the end, or
            recording stopped before.
        StoppedError: a signal ended the run; everything is closed and written.
        UsageError, BadInputError, MissingDependencyError: the run cannot begin.
    """
    with contextlib.ExitStack() as stack:
        if screen is not None:
            stack.push(contextlib.closing(screen))
        stack.enter_context(locked_folder(options.out_dir, REPLACED))
        folder = open_folder(options.out_dir, exist_ok=options.exist_ok)
        try:
            if screen is None:
                screen = stack.enter_context(contextlib.closing(FileScreen(folder.path / FRAMES)))
            run = LiveRun(load, address, options, folder, screen, make_capture, limits)
        except BaseException:
            folder.discard()
            raise
        return run.go(cancel or Cancellation(), notify)


class LiveRun:
    """Creates, starts and closes the parts of one run. See ``run_live``."""

    def __init__(
        self,
        load: Callable[[], Runner],
        address: LiveAddress,
        options: LiveOptions,
        folder: LiveFolder,
        screen: Screen,
        make_capture: MakeCapture,
        limits: SupervisorLimits | None,
    ) -> None:
        self._address = address
        self._options = options
        self._folder = folder
        self._screen = screen
        self._closers: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._first = False
        try:
            self.events = EventLog(folder.path / EVENTS)
            self._closers.append(self.events.close)
            self.procedure = LiveProcedure(folder.path)
            self._closers.append(self.procedure.close)
            self.capture = make_capture(address, self.events, loop=options.loop)
            self.frames = FrameRing(_RAW_SLOTS)
            self._closers.append(self.frames.close)
            self.tallies = Tallies()
            self.board = MarkerBoard(
                options.overlay,
                options.alpha,
                options.max_staleness_s,
                options.motion,
                label=options.label,
                pause_on_poor=options.pause_on_poor,
            )
            self.markers = LiveMarkers(self.board, self.events)
            self.supervisor = Supervisor(
                load,
                options.worker.in_folder(folder.path),
                self.frames,
                self.events,
                limits=replace(limits or SupervisorLimits(), max_staleness_s=options.max_staleness_s),
                on_result=self._take,
            )
            self.shown: FrameRing | None = None
            if options.recording is not None or options.monitor is not None:
                self.shown = FrameRing(_SHOWN_SLOTS)
                self._closers.append(self.shown.close)
            self.recorder = self._make_recorder()
            self.monitor, self.status_writer = self._make_monitor(address)
        except BaseException:
            self._close()
            raise

    def go(self, cancel: threading.Event, notify: Callable[[str], None]) -> LiveReport:
        """Run until the end, close everything, write the report, and raise the first error."""
        began_s = time.monotonic()
        ended_by = "error"
        keep_freed_memory(KEPT_BYTES)
        try:
            with fast_thread_switches():
                with interrupts_blocked():
                    self._start(notify)
                began_s = self.tallies.began_s = time.monotonic()
                capture = (one for one in threading.enumerate() if one.name == "vmkla-capture")
                with display_first(*capture) as self._first:
                    duration_s = self._options.duration_s
                    until_s = None if duration_s is None else began_s + duration_s
                    ended_by = self._loop().run(self._stopper(cancel, notify), until_s)
        except BaseException as error:
            self._error = error
        wall_s = time.monotonic() - began_s
        self.tallies.finish(time.monotonic())
        began = bool(self.tallies.shown or self.tallies.replaced)
        self._end(ended_by)
        if self._error is not None and not began:
            self._folder.discard()
            raise self._error
        report = self._report(ended_by, cancel, wall_s)
        self._write_report(report)
        # The report is there before the procedure's page, which takes seconds after hours.
        if self.procedure.rows:
            report = self._finish_procedure(report)
            self._write_report(report)
        if self._error is not None:
            raise self._error
        if report.outcome == "degraded":
            raise DegradedError(report.message, hint=f"The log and the report are in {self._options.out_dir}")
        if report.outcome == "interrupted" and isinstance(cancel, Cancellation) and cancel.signum is not None:
            raise StoppedError(cancel.signum, report.message)
        return report

    def _write_report(self, report: LiveReport) -> None:
        try:
            self._folder.write_report(report.to_dict())
        except VmklaError as error:
            self._error = self._error or error

    def _finish_procedure(self, report: LiveReport) -> LiveReport:
        """Write the lesions and the page, and return the report with them."""
        lesions, warnings = None, report.warnings
        try:
            marked_s, stills = self.tallies.first_marked_s, self._options.worker.stills is not None
            lesions = self.procedure.finish(report.to_dict(), marked_s, stills=stills)
        except VmklaError as error:
            warnings += (f"{PAGE} is missing, make it with vmkla report: {self._plain(error.message)}",)
        return replace(report, lesions=lesions, warnings=warnings, outputs=self._folder.outputs())

    def _take(self, result: LiveResult) -> None:
        self.markers.take(result)
        self.procedure.add(result, classes=self.supervisor.describe().get("classes", 1) > 1)

    def recording(self) -> bool | None:
        """Return whether frames are being written; None when nothing is to be recorded."""
        return None if self.recorder is None else self.recorder.state[0]

    def _make_recorder(self) -> Recorder | None:
        options = self._options
        if options.recording is None or self.shown is None:
            return None
        return Recorder(
            self._folder.path / RECORDING,
            self.frames.subscribe(),
            self.shown.subscribe(),
            options.recording,
            self.events,
        )

    def _make_monitor(self, address: LiveAddress) -> tuple[Monitor | None, StatusWriter | None]:
        options = self._options
        if options.monitor is None or self.shown is None:
            return None, None
        board = Board(STATUS_CAPACITY_BYTES)
        self._closers.append(board.close)
        monitor = Monitor(options.monitor, self.shown.subscribe(), board, self.events)
        self._closers.append(monitor.close)

        def recording() -> tuple[bool | None, str]:
            return (None, "") if self.recorder is None else self.recorder.state

        writer = StatusWriter(
            board,
            self.capture,
            self.tallies,
            self.events,
            restarts=lambda: self.supervisor.counts.get("restarts", 0),
            recording=recording,
            names=address.names,
        )
        return monitor, writer

    def _start(self, notify: Callable[[str], None]) -> None:
        """Start all parts, the source last, so that no frame comes before it can be shown.

        ``_end`` closes what was started, whatever happens here.
        """
        self.procedure.origin_s = self.events.add("run begins").at_s
        if self._folder.full:
            self.events.add("disk full", "there may be no room for the report")
            notify("note: the disk is full, the log and the report may be missing")
        if self.recorder is not None:
            self.recorder.start()
            self._closers.append(self.recorder.close)
        self._closers.append(self.supervisor.close)
        self.supervisor.start()
        if self.monitor is not None and self.status_writer is not None:
            self.status_writer.start()
            self._closers.append(self.status_writer.close)
            self.monitor.start()
            notify(f"monitor: {self.monitor.url}")
        self._closers.append(self.capture.close)
        self.capture.start()

    def _loop(self) -> DisplayLoop:
        return DisplayLoop(
            self.capture,
            self._screen,
            self.supervisor,
            self.markers,
            self.board,
            self.frames,
            self.shown,
            self.tallies,
            self.events,
            max_staleness_s=self._options.max_staleness_s,
            recording=self.recording,
            service_socket=self._options.service_socket,
        )

    def _stopper(self, cancel: threading.Event, notify: Callable[[str], None]) -> Callable[[], bool]:
        """Return the loop's stop condition, which also reports once why a model cannot be loaded."""
        reported = False

        def stopped() -> bool:
            nonlocal reported
            error = self.supervisor.load_error
            if error is not None and not reported:
                reported = True
                if error.exit_status == UsageError.exit_status:  # a restart would not change that
                    raise error
                notify(f"AI OFF, the video continues: {error}")
            return cancel.is_set()

        return stopped

    def _end(self, ended_by: str) -> None:
        """Close everything, the newest part first; an error in one step does not skip another."""
        if self._error is None and self.capture.error is not None and not self.tallies.shown:
            self._error = self.capture.error
        self.events.add("run ends", ended_by)
        self._closers.append(self._screen.close)  # a frozen window must not look like a live one
        self._close()

    def _close(self) -> None:
        while self._closers:
            try:
                self._closers.pop()()
            except BaseException as error:
                self._error = self._error or error

    def _report(self, ended_by: str, cancel: threading.Event, wall_s: float) -> LiveReport:
        options, counts = self._options, self.capture.counts
        about = self.supervisor.describe()
        worker_counts = self.supervisor.counts
        end = self._how_it_ended(cancel)
        load_error = self.supervisor.load_error
        warnings = [str(warning) for warning in about.get("warnings", ())]
        if load_error is not None:
            warnings.append(f"the model cannot be loaded: {self._plain(load_error.message)}")
        if self.markers.deinterlaced:
            why = "as asked" if options.worker.deinterlace == "yes" else "the source looks interlaced"
            warnings.append(
                f"{self.markers.deinterlaced} of {self.markers.results} results come from one field: {why}"
            )
        for (count, cause), what in (
            (self.events.unwritten, f"events are not in {EVENTS}"),
            (self.procedure.unwritten, f"results are not in {RESULTS}"),
            (getattr(self._screen, "unwritten", (0, "")), "lines of shown frames are missing"),
        ):
            if count:
                warnings.append(f"{count} {what}: {cause}")
        if slow := too_slow(self.tallies, self.markers.latency_ms["worker"], options.max_staleness_ms):
            warnings.append(slow)
        recorder = self.recorder
        recording = None if recorder is None else {**recorder.counts, "state": recorder.state[1]}
        return LiveReport(
            outcome=end.outcome,
            exit_status=end.exit_status,
            message=self._plain(end.message),
            ended_by=ended_by,
            out_dir=options.out_dir,
            outputs=self._folder.outputs(),
            wall_s=wall_s,
            received=counts.received,
            dropped=counts.dropped,
            damaged=counts.damaged,
            source_opened=counts.opened,
            tallies=self.tallies.to_dict(),
            latency_ms={
                name: stats.to_dict() for name, stats in self.markers.latency_ms.items() if stats.count
            },
            worker={"restarts": 0, "deinterlaced": self.markers.deinterlaced, **worker_counts},
            markers_cleared=dict(self.board.cleared),
            events=self.events.counts,
            model=about.get("model", {}),
            runtime=about.get("runtime", {}),
            input=self.capture.describe(),
            settings={
                **options.to_dict(about.get("point", asdict(options.worker.point))),
                "picture_first": self._first,
            },
            recording=recording,
            warnings=tuple(warnings),
        )

    def _plain(self, message: str) -> str:
        """Return a message for the report without passwords and names of folders: reports are passed on."""
        return Names({str(self._options.out_dir): "the output folder"}).hide(self._address.redact(message))

    def _how_it_ended(self, cancel: threading.Event) -> ErrorReport:
        out_dir, counts = self._options.out_dir, self.capture.counts
        reason = "" if self.recorder is None else self.recorder.state[1]
        recording_stopped = "" if reason == "ended" else reason
        missing = what_is_missing(
            self.tallies, counts.received, counts.dropped, self._options.drop_budget, recording_stopped
        )
        message = f"stopped after {self.tallies.shown} frames; the log and the report are in {out_dir}"
        return ErrorReport.of_run(
            self._error,
            signum=getattr(cancel, "signum", None),
            stopped=message if cancel.is_set() else "",
            missing=missing,
        )
