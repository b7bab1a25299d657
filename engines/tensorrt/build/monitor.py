"""Progress of a build, and its end before time."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from vmkla.engines.tensorrt.api import TensorRTApi

SCALE = 1000
"""Parts of a whole build, as progress counts them."""

Result = TypeVar("Result")


class BuildProgress(Protocol):
    """Called with the parts done, all parts, and the name of the phase."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


class Phases:
    """The nested phases that a library reports, as one share that never falls.

    The library calls from its own threads; what goes wrong in ``progress`` ends the build and is kept.

    Args:
        progress: told of every step; None for nobody.
    Attributes:
        error: what ``progress`` raised.
    """

    def __init__(self, progress: BuildProgress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._open: dict[str, _Phase] = {}
        self._shown = 0
        self._cancelled = threading.Event()
        self.error: Exception | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._open[name] = _Phase(parent, steps)
        self._tell(name)

    def step(self, name: str, index: int) -> bool:
        """A step has ended.

        Returns:
            Whether the library shall go on.
        """
        with self._lock:
            if name in self._open:
                self._open[name].done = index + 1
        self._tell(name)
        return not self._cancelled.is_set()

    def finish(self, name: str) -> None:
        """A phase has ended, with or without having counted all its steps."""
        with self._lock:
            phase = self._open.get(name)
            if phase is None:
                return
            phase.done = phase.steps
        if not self.cancelled:
            self._tell(name)
        with self._lock:
            self._open.pop(name, None)

    def cancel(self) -> None:
        """Let the library stop at its next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Somebody called ``cancel``, or ``progress`` failed."""
        return self._cancelled.is_set()

    def _tell(self, name: str) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._shown = max(self._shown, int(SCALE * self._share(name)))
            shown = self._shown
        try:
            self._progress(shown, SCALE, name)
        except Exception as error:  # it came through C++, which would only print it
            self.error = error
            self._cancelled.set()

    def _share(self, name: str) -> float:
        """Of the whole that is done, seen from one open phase up to the outermost."""
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
    """An ``IProgressMonitor`` that hands everything to ``phases``."""
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
    """Run native code that holds no Python in a thread of its own, so that a signal is heard at once.

    Args:
        work: the call.
        cancel: asks it to end; called when the waiting is interrupted.
    Returns:
        What ``work`` returned.
    Raises:
        BaseException: what ``work`` raised, or what interrupted the waiting, once ``work`` has ended. Who
            cannot wait that long interrupts again, which ends the process.
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
        # Not Thread.join: interrupted, CPython 3.11 takes the thread for one that has ended. And again and
        # again, since a signal that another thread received does not wake this one.
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
        yield  # signals are none of this thread's business
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
