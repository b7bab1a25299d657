"""Watchdog of one worker: decides whether it is trusted, in doubt, or to be ended."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vmkla.errors import BadInputError
from vmkla.video.live.frame import AiState, LiveResult
from vmkla.video.live.network.pulse import Pulse

NO_RESULT = "no result in time"
TOO_SLOW = "too slow"
_CLOCK_SLACK_S = 0.5
"""Tolerance for a result's time, seconds: a busy machine may pause between clock and result."""
_USUAL_RESULTS = 30
"""Number of inferences over whose median the usual time is taken."""


@dataclass(frozen=True)
class SupervisorLimits:
    """Time limits of a worker.

    Attributes:
        max_staleness_s: longest time between the capture of a result's frame and that of a frame it covers.
        overrun_s, overrun_factor: an inference longer than this time, and than this multiple of the usual
            time, turns the AI off, before the last result is too old.
        pulse_s: time without a pulse after which the worker is not trusted.
        hang_s: time without a pulse, or in one inference or repeated self-test, after which it is killed.
        start_s: longest time for loading and the first self-test.
        start_pulse_s: time without a pulse while loading, which may hold up every thread of the process,
            after which the worker is killed.
        settle_s: time for which all frames must be covered before the AI is on again.
        watchdog_s: time without a check by the supervisor after which the AI is off.
        backoff_s: wait before the first restart, doubled each time.
        backoff_max_s: longest wait after a worker that did not start.
        backoff_ready_max_s: longest wait after a worker that had passed its self-test.
        healthy_s: time for which a worker must have been ready for the wait to start from ``backoff_s``
            again.
    """

    max_staleness_s: float = 0.12
    overrun_s: float = 0.05
    overrun_factor: float = 3.0
    pulse_s: float = 0.08
    hang_s: float = 2.0
    start_s: float = 60.0
    start_pulse_s: float = 10.0
    settle_s: float = 0.3
    watchdog_s: float = 0.1
    backoff_s: float = 0.2
    backoff_max_s: float = 10.0
    backoff_ready_max_s: float = 2.0
    healthy_s: float = 30.0


@dataclass(frozen=True)
class Fault:
    """Why a worker is ended.

    Attributes:
        cause: a few words without names or paths, for the screen and the counts.
        detail: what else is known, for the log; may name files.
        pulse: last pulse of the worker, when there is one.
    """

    cause: str
    detail: str = ""
    pulse: Pulse | None = None


class Watched(Protocol):
    """A worker as the watchdog sees it."""

    def death(self) -> Fault | None:
        """Return why the process ended; None while it runs."""

    def read_pulse(self) -> Pulse:
        """Return the newest pulse."""

    def read_result(self) -> LiveResult | None:
        """Return a result that was not read yet; None when there is none."""

    def ask_self_test(self, number: int) -> None:
        """Ask for a self-test."""


class Watch:
    """The watchdog of one worker. Call ``tick`` many times a second.

    Args:
        worker: worker to watch.
        newest: returns sequence and capture time of the newest frame that the worker could take.
        limits: time limits.
        before: state and reason until the worker is ready.
        started_s: start of the worker, seconds of ``time.monotonic()``.
        counts: counts of accepted and rejected results, updated here.

    Attributes:
        verdict: state and reason at the last ``tick``.
        result: newest accepted result; None while the worker is in doubt.
        ready_s: time of the first passed self-test, seconds of ``time.monotonic()``; None before.
    """

    def __init__(
        self,
        worker: Watched,
        newest: Callable[[], tuple[int, float] | None],
        limits: SupervisorLimits,
        *,
        before: tuple[AiState, str],
        started_s: float,
        counts: Counter[str],
    ) -> None:
        self._worker = worker
        self._newest = newest
        self._limits = limits
        self._started_s = started_s
        self._counts = counts
        self._sequence = 0  # of the last accepted result
        self._doubted = False
        self._asked = 0  # number of the last requested self-test
        self._asked_s: float | None = None  # time of the request, while its answer is missing
        self._seen_s: float | None = None  # capture time of the newest frame at the last tick
        self._resumed_s = 0.0  # time from which frames must be covered: the end of a gap, or readiness
        self._gap_ended_s = 0.0  # capture time of the first frame after a gap
        self._uncovered_s: float | None = None  # last time at which a frame was not covered
        self._lag: tuple[AiState, str] | None = None  # state shown until frames are covered again
        self._was_on = False
        self._inferring_since_s: float | None = None
        self._inference_s: deque[float] = deque(maxlen=_USUAL_RESULTS)
        self._before = before[0]
        self.verdict = before
        self.result: LiveResult | None = None
        self.ready_s: float | None = None

    def tick(self, now_s: float) -> Fault | None:
        """Check the worker, and return why it is to be ended; None when it may continue."""
        fault = self._worker.death() or self._life(now_s)
        if fault is not None or self.ready_s is None:
            return fault
        try:
            self._take_result(now_s)
        except BadInputError as error:
            return Fault("result makes no sense", str(error))
        self.verdict = self._judge(now_s)
        return None

    def _life(self, now_s: float) -> Fault | None:
        """Check the worker's pulse."""
        pulse, limits = self._worker.read_pulse(), self._limits
        silent_s = now_s - pulse.at_s
        if pulse.stage == "failed":
            return Fault(pulse.cause, f"{pulse.error}: {pulse.message}", pulse)
        if pulse.self_tests < 0:
            since_start_s = now_s - self._started_s
            if silent_s > limits.start_pulse_s or since_start_s > limits.start_s:
                return Fault("worker does not start", f"not ready after {since_start_s:.1f} s", pulse)
            return None
        if self.ready_s is None:
            self.ready_s = self._resumed_s = now_s
        if silent_s > limits.hang_s:
            return Fault("worker does not answer", f"silent for {silent_s:.1f} s", pulse)
        since_s = self._inferring_since_s = pulse.inferring_since_s
        if since_s is not None and now_s - since_s > limits.hang_s and silent_s <= limits.pulse_s:
            return Fault("inference hangs", f"for {now_s - since_s:.1f} s", pulse)
        return self._doubt(pulse, silent_s, now_s)

    def _doubt(self, pulse: Pulse, silent_s: float, now_s: float) -> Fault | None:
        """Require a self-test of a worker that was silent before it is trusted again."""
        if silent_s > self._limits.pulse_s:
            self._doubted, self._asked_s = True, None
        elif self._doubted and self._asked_s is None:
            self._asked += 1
            self._asked_s = now_s
            self._worker.ask_self_test(self._asked)
        elif self._doubted and pulse.self_tests == self._asked:
            self._doubted, self._asked_s = False, None
            self._resumed_s, self._was_on, self._lag = now_s, False, None
        elif self._asked_s is not None and now_s - self._asked_s > self._limits.hang_s:
            return Fault("self-test hangs", f"for {now_s - self._asked_s:.1f} s", pulse)
        if self._doubted:
            self.result = None
        return None

    def _take_result(self, now_s: float) -> None:
        """Accept the worker's newest result if it is plausible.

        Raises:
            BadInputError: its numbers or times are impossible.
        """
        result = self._worker.read_result()
        if result is None:
            return
        newest = self._newest()
        if newest is None or result.sequence > newest[0] or result.captured_s > newest[1]:
            raise BadInputError(f"a result for frame {result.sequence}, which is not there yet")
        if result.sequence <= self._sequence:
            raise BadInputError(f"a result for frame {result.sequence} after {self._sequence}")
        if result.finished_s > now_s + _CLOCK_SLACK_S:
            raise BadInputError(f"a result from {result.finished_s - now_s:.3f} s ahead")
        self._sequence = result.sequence
        if self._doubted:
            self._counts["rejected: worker is doubted"] += 1
            return
        self._counts["results"] += 1
        if "inference" in result.latency_ms:
            self._inference_s.append(result.latency_ms["inference"] / 1e3)
        self.result = result

    def _judge(self, now_s: float) -> tuple[AiState, str]:
        if self._doubted:
            return AiState.OFF, "worker does not answer" if self._asked_s is None else "self-test"
        newest, limits = self._newest(), self._limits
        if newest is None:
            return AiState.STARTING, "no picture yet"
        if self._seen_s is not None and newest[1] - self._seen_s > limits.max_staleness_s:
            self._resumed_s = self._gap_ended_s = newest[1]
        self._seen_s = newest[1]
        behind_s = newest[1] - (self.result.captured_s if self.result else float("-inf"))
        if behind_s > limits.max_staleness_s:
            self._uncovered_s = now_s
            # The first inference after a gap may take long; the next ones may not.
            went_on = self.result is not None and self.result.captured_s > self._gap_ended_s
            if went_on and newest[1] - self._resumed_s > limits.max_staleness_s:
                self._lag = (AiState.OFF, TOO_SLOW)
            elif self._lag is None:
                self._lag = (AiState.OFF if self._was_on else self._before, "catching up")
            return self._lag
        if self._lag == (AiState.OFF, TOO_SLOW) and self._was_on and self._uncovered_s is not None:
            if now_s - self._uncovered_s < limits.settle_s:
                return self._lag  # a worker that is almost fast enough must not flicker
        self._lag = None
        self._was_on, self._uncovered_s, self._before = True, None, AiState.OFF
        return (AiState.OFF, NO_RESULT) if self._overruns(now_s) else (AiState.ON, "")

    def _overruns(self, now_s: float) -> bool:
        """Whether the current inference takes longer than usual."""
        if self._inferring_since_s is None:
            return False
        usual_s = statistics.median(self._inference_s) if self._inference_s else 0.0
        longest_s = max(self._limits.overrun_s, self._limits.overrun_factor * usual_s)
        return now_s - self._inferring_since_s > longest_s
