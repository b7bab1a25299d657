"""Run the worker, restart it after faults, and report whether its results may be trusted."""

from __future__ import annotations

import atexit
import contextlib
import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vmkla.errors import ErrorReport, VmklaError
from vmkla.runner import Runner
from vmkla.video.live.events import EventSink
from vmkla.video.live.frame import AiState, LiveResult
from vmkla.video.live.network.generation import Generation
from vmkla.video.live.network.lesions import KeptTracker
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.network.watch import Fault, SupervisorLimits, Watch
from vmkla.video.live.network.worker import LOAD_CAUSE
from vmkla.video.live.shared_memory.ring import FrameRing, Waker

__all__ = ["Supervisor", "SupervisorLimits"]

_TICK_S = 0.01
_JOIN_S = 5.0


class Supervisor:
    """Runs the worker from a thread of the display process; no other thread waits for it.

    Args:
        load: loads the runner, for instance ``functools.partial(load_runner, "nano", threads=1)``; pickled
            into the worker's process.
        options: options of the worker.
        frames: ring that the display publishes to.
        events: log of the run.
        limits: time limits of the worker.
        on_result: called from the supervisor's thread with every accepted result. Keep it short, since the
            watchdog waits for it.
    """

    def __init__(
        self,
        load: Callable[[], Runner],
        options: WorkerOptions,
        frames: FrameRing,
        events: EventSink,
        *,
        limits: SupervisorLimits | None = None,
        on_result: Callable[[LiveResult], None] | None = None,
    ) -> None:
        self._load = load
        self._options = options
        self._frames = frames
        self._events = events
        self._limits = limits or SupervisorLimits()
        self._on_result = on_result
        self._waker = Waker()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vmkla-supervisor", daemon=True)
        self._generation: Generation | None = None
        self._counts: Counter[str] = Counter(results=0, restarts=0, faults=0)
        self._about: dict[str, Any] = {}
        self._kept = KeptTracker()
        self._wait_s = self._limits.backoff_s
        self._load_error: VmklaError | None = None
        self._off_since_s = time.monotonic()
        # Each is replaced as one object, so that other threads read it without a lock.
        self._state: tuple[AiState, str, float] = (AiState.STARTING, "starting", self._off_since_s)
        self._result: LiveResult | None = None

    def start(self) -> None:
        """Start the worker and its supervision."""
        atexit.register(self._kill)  # multiprocessing would never return from a worker that is stopped
        self._thread.start()

    def close(self) -> None:
        """End the worker and its supervision within seconds; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._waker.wake()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        atexit.unregister(self._kill)
        self._set_state(AiState.OFF, "ended")
        if not self._thread.is_alive():
            self._waker.close()

    @property
    def state(self) -> tuple[AiState, str]:
        """Whether results may be trusted now, and if not why, in a few words. Never blocks."""
        state, reason, looked_s = self._state
        if state is AiState.ON and time.monotonic() - looked_s > self._limits.watchdog_s:
            return AiState.OFF, "watchdog is late"
        return state, reason

    @property
    def result(self) -> LiveResult | None:
        """The newest accepted result; None while no worker is trusted."""
        return self._result

    @property
    def counts(self) -> dict[str, int]:
        """``results``, ``restarts``, ``faults``, and each ``"fault: CAUSE"`` and ``"rejected: CAUSE"``."""
        return dict(self._counts)

    @property
    def load_error(self) -> VmklaError | None:
        """Why the model could not be loaded so far; None when it was, or when no attempt has failed."""
        return self._load_error

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        generation = self._generation
        return None if generation is None else generation.pid

    def describe(self) -> dict[str, Any]:
        """Return model, runtime, warnings, operating point and self-test; empty before the first load."""
        return {key: value for key, value in self._about.items() if key != "known_output"}

    def _run(self) -> None:
        while not self._closing.is_set():
            fault = self._run_once()
            if fault is None:
                return
            self._closing.wait(self._wait_s)
            self._wait_s = min(2 * self._wait_s, self._limits.backoff_max_s)
            self._counts["restarts"] += not self._closing.is_set()

    def _run_once(self) -> Fault | None:
        """Run one worker from start to end; return None when the supervision is to end."""
        state, reason, _ = self._state
        if state is AiState.STARTING:
            reason = "loading the model"
        self._set_state(state, reason)
        with contextlib.ExitStack() as stack:
            try:
                # A reader of its own, so that it does not begin with frames that its predecessor left unread.
                reader = stack.enter_context(contextlib.closing(self._frames.subscribe()))
                known_output = self._about.get("known_output")
                generation = Generation(self._load, self._options, known_output, self._kept, reader)
                self._generation = generation
                self._events.add("worker started", pid=generation.pid)
                fault = self._watch(generation, (state, reason))
            except Exception as error:  # whatever fails here, the video continues without AI
                fault = Fault(_cause(error), f"{type(error).__name__}: {error}")
            if fault is not None:
                self._report_fault(fault)
            elif self._options.stills is not None and self._state[0] is not AiState.STARTING:
                generation.end()
            self._kill()
        return fault

    def _watch(self, generation: Generation, before: tuple[AiState, str]) -> Fault | None:
        watch = Watch(
            generation,
            lambda: self._frames.newest,
            self._limits,
            before=before,
            started_s=generation.started_s,
            counts=self._counts,
        )
        fault: Fault | None = None
        while fault is None and not self._closing.is_set():
            generation.wait(self._waker, _TICK_S)
            was_ready = watch.ready_s is not None
            fault = watch.tick(time.monotonic())
            if not was_ready and watch.ready_s is not None:
                self._read_description(generation, watch.ready_s)
            if fault is None:
                self._accept(watch.result)
                self._set_state(*watch.verdict)
        if watch.ready_s is not None:
            healthy = time.monotonic() - watch.ready_s >= self._limits.healthy_s
            self._wait_s = (
                self._limits.backoff_s if healthy else min(self._wait_s, self._limits.backoff_ready_max_s)
            )
            self._keep_tracker(generation)
        return fault

    def _keep_tracker(self, generation: Generation) -> None:
        """Keep the state of the tracker of a worker that ends.

        A worker that was ready and has tracked nothing may have died of the state that it was given, so that
        one is not given again.
        """
        self._kept = replace(self._kept, state=generation.read_tracker() or b"")

    def _read_description(self, generation: Generation, ready_s: float) -> None:
        """Read the description of a worker that is ready, and log it."""
        about = generation.read_about()
        if about is not None:
            self._about = about
        self._load_error = None
        self._events.add("worker ready", start_ms=round((ready_s - generation.started_s) * 1e3, 1))

    def _accept(self, result: LiveResult | None) -> None:
        if result is self._result:
            return
        if result is not None:
            numbers = (number or 0 for number in result.lesions.numbers)
            self._kept = replace(
                self._kept, next_number=max(self._kept.next_number, 1 + max(numbers, default=0))
            )
            if self._on_result is not None:
                self._on_result(result)
        self._result = result

    def _report_fault(self, fault: Fault) -> None:
        """Turn the AI off after a fault, count it and log it."""
        self._result = None
        self._set_state(AiState.OFF, fault.cause)
        self._counts["faults"] += 1
        self._counts[f"fault: {fault.cause}"] += 1
        pulse = fault.pulse
        if fault.cause == LOAD_CAUSE and pulse is not None and not self._about:
            self._load_error = ErrorReport(pulse.message, pulse.hint, pulse.exit_status).error()
        pid = self._generation.pid if self._generation is not None else None
        self._events.add(
            "worker fault", fault.cause, error=fault.detail, pid=pid, restart_after_s=round(self._wait_s, 3)
        )

    def _set_state(self, state: AiState, reason: str) -> None:
        """Set the state, and log it when it changes."""
        now_s = time.monotonic()
        before, reason_before, _ = self._state
        self._state = (state, reason, now_s)
        if (state, reason) == (before, reason_before):
            return
        facts = {}
        if state is AiState.ON:
            facts["off_ms"] = round((now_s - self._off_since_s) * 1e3, 1)
        elif before is AiState.ON:
            self._off_since_s = now_s
        self._events.add(f"ai {state.value}", reason, **facts)

    def _kill(self) -> None:
        generation, self._generation = self._generation, None
        if generation is not None and not generation.kill():
            self._events.add("worker fault", "process does not end", pid=generation.pid)


def _cause(error: Exception) -> str:
    """Return why no worker could be started, in a few words."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files"
    return "worker cannot be run"
