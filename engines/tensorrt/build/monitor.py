"""Report the progress of a build, and cancel it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from vmkla.engines.tensorrt.api import TensorRTApi

SCALE = 1000
"""Number of parts of a whole build that progress counts."""

Result = TypeVar("Result")


class BuildProgress(Protocol):
    """Callback that gets the number of parts done, of all parts, and the name of the phase."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


class Phases:
    """Convert the nested phases that a library reports into one share that never falls.

    The library calls from its own threads. An error in ``progress`` cancels the build and is kept.

    Args:
        progress: called at every step; None reports nothing.
    Attributes:
        error: the error that ``progress`` raised; None without one.
    """

    def __init__(self, progress: BuildProgress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._open: dict[str, _Phase] = {}
        self._shown = 0
        self._cancelled = threading.Event()
        self.error: Exception | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Record that a phase begins."""
        with self._lock:
            self._open[name] = _Phase(parent, steps)
        self._report(name)

    def step(self, name: str, index: int) -> bool:
        """Record that a step of a phase has ended.

        Returns:
            Whether the library should continue.
        """
        with self._lock:
            if name in self._open:
                self._open[name].done = index + 1
        self._report(name)
        return not self._cancelled.is_set()

    def finish(self, name: str) -> None:
        """Record that a phase has ended, whether or not it reported all its steps."""
        with self._lock:
            phase = self._open.get(name)
            if phase is None:
                return
            phase.done = phase.steps
        if not self.cancelled:
            self._report(name)
        with self._lock:
            self._open.pop(name, None)

    def cancel(self) -> None:
        """Ask the library to stop at its next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called or ``progress`` failed."""
        return self._cancelled.is_set()

    def _report(self, name: str) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._shown = max(self._shown, int(SCALE * self._share(name)))
            shown = self._shown
        try:
            self._progress(shown, SCALE, name)
        except Exception as error:  # raised into the library's C++, it would only be printed
            self.error = error
            self._cancelled.set()

    def _share(self, name: str) -> float:
        """Return the share of the build that is done, 0 to 1, from an open phase up to the outermost."""
        share, current = 0.0, self._open.get(name)
        for _ in range(len(self._open)):
            if current is None:
                break
            share = (current.done + min(share, 1.0)) / max(current.steps, 1)
            current = self._open.get(current.parent or "")
        return min(share, 1.0)


class _Phase:
    def __init__(self, parent: str | None, steps: int) -> None:
        self.parent = parent
        self.steps = steps
        self.done = 0


def make_monitor(api: TensorRTApi, phases: Phases) -> Any:
    """Make an ``IProgressMonitor`` that passes every call to ``phases``."""
    base: Any = api.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        """Called by the library from any of its threads."""

        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def run_cancellable(work: Callable[[], Result], cancel: Callable[[], None]) -> Result:
    """Run native code in a thread of its own, so that the calling thread reacts to signals at once.

    Args:
        work: the call, which releases Python's lock.
        cancel: called when the wait is interrupted; asks ``work`` to end.
    Returns:
        The result of ``work``.
    Raises:
        BaseException: the error of ``work``, or the interruption, once ``work`` has ended. A second Ctrl-C
            ends the process at once.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=target, name="vmkla-build", daemon=True).start()
        # Not Thread.join: after an interruption CPython 3.11 treats the thread as ended. Short waits, since a
        # signal that another thread received does not wake this one.
        while not ended.wait(0.1):
            pass
    except RuntimeError:
        raise  # no thread could be started
    except BaseException:
        cancel()
        with _interrupt_ends_the_process():
            ended.wait()
        raise
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def _interrupt_ends_the_process() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
