"""The worker process: run the network on the newest frame and publish its findings.

The process may be killed, stopped or stuck at any instruction; no other waits for it. After any fault it
reports the cause in its pulse and ends, and the supervisor starts a new one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vmkla.allocator import keep_freed_memory
from vmkla.procedures.scene import thumbnail
from vmkla.runner import Runner, check_one_by_one, describe_model, describe_runtime, model_warnings
from vmkla.safe_text import log_printable
from vmkla.segment.preprocess import PreprocessSpec, Rect, field_of_view, visible_field
from vmkla.segment.self_test import check_self_test
from vmkla.segment.steps import check, find, infer, view
from vmkla.video.latency import Stopwatch
from vmkla.video.live.child_process import set_up_child
from vmkla.video.live.frame import LiveFrame, LiveResult
from vmkla.video.live.network.deinterlace import LiveDeinterlacer
from vmkla.video.live.network.lesions import KeptTracker, WorkerLesions
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.network.pulse import PulseWriter
from vmkla.video.live.network.results import encode_result
from vmkla.video.live.network.temporal import TemporalFilter
from vmkla.video.live.priority import KEPT_BYTES
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import RingReader

LOAD_CAUSE = "model cannot be loaded"
ABOUT_BYTES = 1 << 20
CONTROL_BYTES = 256
END = b"end"
"""What asks a worker on the control board to write its stills and end."""
STILLS_S = 1.0
"""Longest time for that, seconds."""
_WAIT_S = 0.05
_FIELD_EVERY_S = 1.0
_FIELD_MOVES_BY = 1 / 32
"""Share of the frame by which a side of the field of view must move to be followed: edges flicker."""


class FaultError(Exception):
    """A fault after which the worker ends.

    Args:
        cause: a few words without names or paths.
        error: the exception behind it.
    """

    def __init__(self, cause: str, error: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause
        self.error = error


@dataclass(frozen=True)
class WorkerLinks:
    """Shared memory between the display process and a worker.

    Attributes:
        frames: reader of the display's frames.
        results: board for results, see ``encode_result``.
        pulse: board for the ``Pulse``.
        about: board for one description of the model as JSON: ``model``, ``runtime``, ``warnings``,
            ``point``, ``classes``, ``self_test``, ``known_output``.
        control: board with the numbers of requested self-tests, or ``END``.
        tracker: board for the state of the tracker, see ``KeptTracker``.
    """

    frames: RingReader
    results: Board
    pulse: Board
    about: Board
    control: Board
    tracker: Board


def work(
    load: Callable[[], Runner],
    options: WorkerOptions,
    known_output: dict[str, Any] | None,
    kept: KeptTracker,
    links: WorkerLinks,
    parent: int,
) -> None:
    """Run the worker until it is killed or fails. The main function of its process.

    Args:
        load: loads the runner; pickled into the process.
        options: options of the worker.
        known_output: answer to the self-test at an earlier start, for a file that has none.
        kept: state of the tracker of the worker before.
        links: shared memory with the display process.
        parent: process id of the display process.
    """
    log_printable()  # what a runner logs may name a file
    _set_up_process(parent, options.niceness)
    pulse = PulseWriter(links.pulse, parent)
    try:
        _work(load, options, known_output, kept, links, pulse)
    except FaultError as fault:
        pulse.fail(fault.cause, fault.error)
    except BaseException as error:  # reported, whatever it is
        pulse.fail("out of memory" if isinstance(error, MemoryError) else "worker failed", error)
    # Without clean-up: a broken device may hang in it, and the system frees everything.
    os._exit(1)


def _work(
    load: Callable[[], Runner],
    options: WorkerOptions,
    known_output: dict[str, Any] | None,
    kept: KeptTracker,
    links: WorkerLinks,
    pulse: PulseWriter,
) -> None:
    with _raising_fault(LOAD_CAUSE):
        runner = load()
        lesions = WorkerLesions(kept, links.tracker, options.stills)
        finder = _Finder(runner, options, pulse, lesions)
    pulse.update(stage="self-testing")
    with _raising_fault("self-test failed"):
        known = check_self_test(runner, known_output)
    stored = runner.spec.metadata.self_test is not None
    tested = {"self_test": "stored in the file" if stored else "from the first start", "known_output": known}
    links.about.publish(json.dumps({**finder.describe(), **tested}).encode())
    gc.collect()
    gc.freeze()  # the garbage collector need not search what loading left
    pulse.update(stage="ready", self_tests=0)
    busy_s = time.monotonic()
    while True:
        wanted = links.control.read()
        if wanted == END:
            lesions.close(STILLS_S)
            os._exit(0)
        if wanted is not None:
            pulse.update(stage="self-testing")
            with _raising_fault("self-test failed"):
                check_self_test(runner, known)
            pulse.update(stage="ready", self_tests=int(wanted))
        if links.frames.wait(_WAIT_S) and (frame := links.frames.latest()) is not None:
            links.results.publish(*encode_result(finder.result(frame)))
            busy_s = time.monotonic()
        elif time.monotonic() - busy_s > options.idle_test_s:
            pulse.update(inferring_since_s=time.monotonic())
            with _raising_fault("self-test failed"):
                check_self_test(runner, known)
            pulse.update(inferring_since_s=None)
            busy_s = time.monotonic()


class _Finder:
    """Computes the result of a frame."""

    def __init__(
        self, runner: Runner, options: WorkerOptions, pulse: PulseWriter, lesions: WorkerLesions
    ) -> None:
        spec = runner.spec
        check_one_by_one(spec)
        metadata = spec.metadata
        self._runner = runner
        self._pulse = pulse
        self._point = spec.point_at(options.point)
        roi = metadata.preprocess.roi if options.roi is None else options.roi
        self._spec = PreprocessSpec(spec.height, spec.width, roi)
        self._field = _Field(roi)
        self._lesions = lesions
        self._deinterlacer = LiveDeinterlacer(options.deinterlace)
        steady = options.temporal is not None and options.temporal.any
        self._filter = TemporalFilter(options.temporal, self._point) if options.temporal and steady else None

    def describe(self) -> dict[str, Any]:
        """Return model, runtime, warnings, operating point and number of classes as plain values."""
        return {
            "model": describe_model(self._runner),
            "runtime": describe_runtime(self._runner),
            "warnings": model_warnings(self._runner),
            "point": self._point.to_dict(),
            "classes": self._runner.spec.num_classes,
        }

    def result(self, frame: LiveFrame) -> LiveResult:
        """Return the network's findings in a frame."""
        watch = Stopwatch()
        latency_ms = {}
        rect = self._field.of(frame)
        whole = self._deinterlacer.of(frame.rgb, frame.captured_s)
        seen = view(whole, self._spec, rect)
        latency_ms["preprocess"] = watch.lap_ms()
        self._pulse.update(inferring_since_s=time.monotonic())
        with _raising_fault("inference failed"):
            probability = infer(self._runner, [seen.pixels_rgb])  # (1, classes, h, w)
        self._pulse.update(inferring_since_s=None)
        latency_ms["inference"] = watch.lap_ms()
        with _raising_fault("output makes no sense"):
            check(probability, self._runner.spec)
        steady, scene = probability[0], thumbnail(frame.rgb)
        if self._filter is not None:
            steady = self._filter.apply(steady, frame.captured_s, scene)
        frame_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        findings = find(steady, rect, frame_hw, self._point)
        latency_ms["postprocess"] = watch.lap_ms()
        lesions = self._lesions.track(frame, findings, rect, scene)
        latency_ms["track"] = watch.lap_ms()
        return LiveResult(
            frame.sequence,
            frame.captured_s,
            time.monotonic(),
            frame_hw,
            findings,
            latency_ms,
            deinterlaced=self._deinterlacer.active,
            lesions=lesions,
        )


class _Field:
    """The field of view, which rarely changes except with the endoscope."""

    def __init__(self, roi: str | Rect) -> None:
        self._roi = roi
        self._rect: Rect | None = None
        self._frame_hw: tuple[int, ...] = ()
        self._looked_s = 0.0

    def of(self, frame: LiveFrame) -> Rect:
        """Return the part of a frame that the network sees; ``"auto"`` searches for it once a second."""
        rgb = frame.rgb
        height_px, width_px = rgb.shape[:2]
        if self._roi != "auto":
            return field_of_view(rgb, self._roi)
        if rgb.shape[:2] != self._frame_hw:
            self._rect, self._frame_hw = None, rgb.shape[:2]
        if self._rect is None or frame.captured_s - self._looked_s >= _FIELD_EVERY_S:
            self._looked_s = frame.captured_s
            found = visible_field(rgb)  # None in the dark: the last one stays
            if found is not None and (self._rect is None or _moved(self._rect, found, self._frame_hw)):
                self._rect = found
        return self._rect or Rect(0, 0, width_px, height_px)


def _moved(before: Rect, after: Rect, frame_hw: tuple[int, ...]) -> bool:
    limit_px = _FIELD_MOVES_BY * min(frame_hw)
    sides = [(rect.x, rect.y, rect.x + rect.w, rect.y + rect.h) for rect in (before, after)]
    return any(abs(first - second) > limit_px for first, second in zip(*sides, strict=True))


@contextlib.contextmanager
def _raising_fault(cause: str) -> Iterator[None]:
    """Raise what fails within the context as a ``FaultError`` with this cause."""
    try:
        yield
    except MemoryError:
        raise  # has a cause of its own
    except Exception as error:
        memory = "out of memory" in str(error).lower() or "bad_alloc" in str(error)
        raise FaultError("out of memory" if memory else cause, error) from error


def _set_up_process(parent: int, niceness: int) -> None:
    """Keep this process from disturbing the display process, and end it with its parent."""
    set_up_child("vmkla-worker", niceness=niceness)
    if os.getppid() != parent:  # the parent ended before that
        os._exit(1)
    keep_freed_memory(KEPT_BYTES)  # its page faults would delay the display
    with contextlib.suppress(OSError):  # a container may forbid it; memory limits apply all the same
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")  # when memory runs out, this process is killed first
