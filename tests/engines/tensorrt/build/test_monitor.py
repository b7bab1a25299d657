"""Progress as one share that never falls, and native work that can be interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from vmkla.engines.tensorrt.api import load_api
from vmkla.engines.tensorrt.build.monitor import SCALE, Phases, make_monitor, run_cancellable


class Recorded:
    """What progress was told."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.notes: list[str] = []

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        assert total == SCALE
        self.done.append(done)
        self.notes.append(note)


def test_nested_phases_are_one_share() -> None:
    seen = Recorded()
    phases = Phases(seen)
    phases.start("whole", None, 4)
    assert phases.step("whole", 0)
    phases.start("part", "whole", 2)
    phases.step("part", 0)  # half of the second quarter
    phases.start("piece", "part", 5)
    phases.step("piece", 4)  # all of the part's second half
    phases.finish("piece")
    phases.step("part", 1)
    phases.finish("part")
    phases.step("whole", 1)
    assert seen.done == [0, 250, 250, 375, 375, 500, 500, 500, 500, 500]
    phases.finish("whole")
    assert seen.done[-1] == 1000
    assert seen.notes[0] == "whole" and seen.notes[5] == "piece"


def test_the_share_never_falls() -> None:
    """Phases may repeat under one name, and a later one may hang from a phase that is no longer open."""
    seen = Recorded()
    phases = Phases(seen)
    phases.start("whole", None, 2)
    for _ in range(3):
        phases.start("part", "whole", 2)
        phases.step("part", 0)
        phases.step("part", 1)
        phases.finish("part")
    phases.start("orphan", "gone", 0)
    phases.step("orphan", 7)
    phases.step("unknown", 3)
    phases.finish("unknown")
    assert seen.done == sorted(seen.done) and max(seen.done) <= SCALE


def test_a_phase_that_is_its_own_parent_ends() -> None:
    phases = Phases(Recorded())
    phases.start("loop", "loop", 2)
    assert phases.step("loop", 0)


def test_after_cancel_the_library_is_told_to_stop() -> None:
    phases = Phases(None)
    phases.start("whole", None, 2)
    assert phases.step("whole", 0) and not phases.cancelled
    phases.cancel()
    assert not phases.step("whole", 1) and phases.cancelled


def test_what_progress_raises_ends_the_build_and_is_kept() -> None:
    def fail(done: int, total: int | None, note: str = "") -> None:
        raise ValueError("the bar broke")

    phases = Phases(fail)
    phases.start("whole", None, 2)
    assert not phases.step("whole", 0)
    assert isinstance(phases.error, ValueError)


def test_the_librarys_monitor_reaches_the_phases() -> None:
    seen = Recorded()
    monitor = make_monitor(load_api("tensorrt-rtx"), Phases(seen))
    monitor.phase_start("whole", None, 2)
    assert monitor.step_complete("whole", 0) is True
    monitor.phase_finish("whole")
    assert seen.done == [0, 500, 1000]


def test_work_gives_its_result_or_its_error() -> None:
    assert run_cancellable(lambda: 7, lambda: None) == 7

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        run_cancellable(fail, lambda: None)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set at the end, so that no thread waits for ever."""
    event = threading.Event()
    yield event
    event.set()


def test_an_interrupt_is_heard_at_once_and_waits_for_the_work(released: threading.Event) -> None:
    running, finished = threading.Event(), []

    def work() -> None:
        running.set()
        released.wait(20)
        time.sleep(0.2)
        finished.append(True)

    def interrupt() -> None:
        running.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work, released.set)
    assert finished == [True]  # cancel released it, and nobody left before it had ended
    assert signal.getsignal(signal.SIGINT) is handler


def test_in_another_thread_signals_are_left_alone() -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(run_cancellable(lambda: 3, lambda: None)))
    thread.start()
    thread.join(20)
    assert results == [3]
