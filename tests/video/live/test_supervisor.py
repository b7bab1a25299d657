"""Workers that are killed, stopped, stuck or wrong; real processes, watched by the real supervisor."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests import FIND_TESTS
from tests.faults import commanded
from tests.faults.commanded import CommandedRunner
from vmkla.engines import load_runner
from vmkla.errors import VmklaError
from vmkla.segment.operating_point import PointOverrides
from vmkla.segment.preprocess import Rect
from vmkla.segment.self_test import known_output
from vmkla.video.live.frame import AiState, LiveFrame, LiveResult
from vmkla.video.live.network.generation import Generation
from vmkla.video.live.network.lesions import KeptTracker
from vmkla.video.live.network.options import TemporalOptions, WorkerOptions
from vmkla.video.live.network.supervisor import Supervisor, SupervisorLimits
from vmkla.video.live.shared_memory.ring import FrameRing

LONG_S = 60.0
# A machine that does much else: only what a test is about shall be the reason for "off".
PATIENT = SupervisorLimits(
    max_staleness_s=5.0,
    overrun_s=5.0,
    pulse_s=2.0,
    hang_s=5.0,
    watchdog_s=5.0,
    settle_s=0.0,
    backoff_s=0.02,
    backoff_max_s=0.05,
)


class Log:
    """Events in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def add(self, kind: str, detail: str = "", **facts: Any) -> None:
        self.lines.append((kind, detail, facts))

    def details(self, kind: str) -> list[str]:
        return [detail for seen, detail, _ in self.lines if seen == kind]


class Live:
    """A camera that shows frames of one value at 30 a second, and a supervised worker."""

    def __init__(
        self,
        load: Callable[[], Any] = CommandedRunner,
        options: WorkerOptions | None = None,
        limits: SupervisorLimits = PATIENT,
        **more: Any,
    ) -> None:
        self.ring = FrameRing(slots=4)
        self.log = Log()
        self.rgb = np.full((60, 80, 3), commanded.HEALTHY, np.uint8)
        self.rgb[10:30, 20:50] = 255
        self.healthy = self.rgb
        self.held = False  # while it is, no frame comes
        self.gaps_s: list[float] = []
        self._ending = threading.Event()
        self._camera = threading.Thread(target=self._show)
        self.supervisor = Supervisor(
            load, options or WorkerOptions(), self.ring, self.log, limits=limits, **more
        )

    def _show(self) -> None:
        sequence, last_s = 0, time.monotonic()
        while not self._ending.wait(1 / 30):
            if self.held:
                continue
            sequence += 1
            self.ring.publish(LiveFrame(sequence, time.monotonic(), self.rgb))
            now_s = time.monotonic()
            self.gaps_s.append(now_s - last_s)
            last_s = now_s

    def command(self, value: int) -> None:
        """Every pixel of the frames from now on."""
        self.rgb = np.full((60, 80, 3), value, np.uint8)

    def wait(self, state: AiState, reason: str = "", *, within_s: float = LONG_S) -> str:
        """Until the state is there, and the reason with it; gives the reason."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            seen, why = self.supervisor.state
            if seen is state and reason in why:
                return why
            time.sleep(0.002)
        raise AssertionError(f"{state} {reason!r} never came: {self.supervisor.state}, {self.log.lines[-8:]}")

    def wait_for(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + LONG_S
        while not done():
            assert time.monotonic() < until, self.log.lines[-8:]
            time.sleep(0.002)

    def pid(self) -> int:
        """Of the worker."""
        self.wait_for(lambda: self.supervisor.pid is not None)
        pid = self.supervisor.pid
        assert pid is not None
        return pid


@contextlib.contextmanager
def live(*args: Any, **kwargs: Any) -> Iterator[Live]:
    made = Live(*args, **kwargs)
    made.supervisor.start()
    made._camera.start()
    try:
        yield made
    finally:
        pid = made.supervisor.pid
        made.supervisor.close()
        made.supervisor.close()
        made._ending.set()
        made._camera.join()
        assert pid is None or is_gone(pid)
        made.ring.close()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_results_are_of_their_frames() -> None:
    taken: list[LiveResult] = []
    with live(on_result=taken.append) as show:
        assert show.supervisor.state[0] is AiState.STARTING
        show.wait(AiState.ON)
        show.wait_for(lambda: len(taken) > 5)
        result = show.supervisor.result
        assert result is not None and result.frame_hw == (60, 80)
        (region,) = result.findings.regions
        box = region.box
        assert abs(box.x - 20) <= 1 and abs(box.y - 10) <= 1 and result.findings.max_probability == 1.0
        assert [one.sequence for one in taken] == sorted({one.sequence for one in taken})
        about = show.supervisor.describe()
        assert about["model"]["name"] == "commanded" and about["runtime"]["version"] == "numpy"
        assert about["point"]["threshold"] == 0.5 and about["self_test"] == "from the first start"
        assert show.supervisor.counts["results"] >= len(taken) - 1
        assert set(result.latency_ms) == {"preprocess", "inference", "postprocess", "track"}
    assert show.supervisor.state == (AiState.OFF, "ended")
    assert show.log.details("ai on") == [""] and not show.log.details("worker fault")


def test_options_reach_the_worker() -> None:
    options = WorkerOptions(
        point=PointOverrides(0.999, min_fraction=0.9),
        roi=Rect(0, 0, 40, 60),
        temporal=TemporalOptions(hysteresis_low=0.9),
    )
    with live(options=options) as show:
        show.wait(AiState.ON)
        show.wait_for(lambda: show.supervisor.result is not None)
        result = show.supervisor.result
        assert result is not None and not result.findings.any  # all of it is smaller than nine tenths
        assert show.supervisor.describe()["point"]["threshold"] == 0.999


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (commanded.NAN, "output makes no sense"),
        (commanded.RAISE, "inference failed"),
        pytest.param(commanded.SHAPE, "output makes no sense", marks=pytest.mark.slow),
        pytest.param(commanded.ABOVE_ONE, "output makes no sense", marks=pytest.mark.slow),
        pytest.param(commanded.DOUBLE, "output makes no sense", marks=pytest.mark.slow),
        pytest.param(commanded.MEMORY, "out of memory", marks=pytest.mark.slow),
        pytest.param(commanded.EXIT, "worker crashed", marks=pytest.mark.slow),
    ],
)
def test_what_fails_is_off_and_comes_back(command: int, reason: str) -> None:
    with live() as show:
        show.wait(AiState.ON)
        show.command(command)
        show.wait(AiState.OFF, reason)
        assert show.supervisor.result is None
        show.rgb = show.healthy
        show.wait(AiState.ON)
        assert reason in show.log.details("worker fault")
        assert show.supervisor.counts[f"fault: {reason}"] >= 1 <= show.supervisor.counts["restarts"]
        assert "/dev" not in "".join(detail for _, detail, _ in show.log.lines)  # names stay in the facts


def lesions_on_a_wall(*boxes: Rect) -> npt.NDArray[np.uint8]:
    """A frame with a texture that the network does not see, and findings at these places."""
    noise = np.random.default_rng(1).normal(0, 1, (60, 80)).astype(np.float32)
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[..., 1] = rgb[..., 2] = np.clip(120 + 120 * cv2.GaussianBlur(noise, (0, 0), 3), 0, 255)
    for box in boxes:
        rgb[box.y : box.y + box.h, box.x : box.x + box.w, 0] = 255
    return rgb


def test_a_lesion_keeps_its_number_when_the_worker_is_killed() -> None:
    large, small = Rect(5, 10, 30, 30), Rect(55, 30, 15, 15)
    taken: list[LiveResult] = []
    with live(on_result=taken.append) as show:

        def numbers(*boxes: Rect) -> list[int | None]:
            """The numbers in the first result for such a frame; those of the frames before are left."""
            show.rgb = lesions_on_a_wall(*boxes)
            since_s = time.monotonic()
            show.wait_for(lambda: bool(taken) and taken[-1].captured_s > since_s + 0.05)
            return list(taken[-1].lesions.numbers)

        show.rgb = lesions_on_a_wall(large, small)
        show.wait(AiState.ON)
        show.wait_for(lambda: len(taken) > 3)
        assert [list(one.lesions.numbers) for one in taken] == [[1, 2]] * len(taken)
        for _ in range(2):
            pid, seen = show.pid(), len(taken)
            show.rgb = lesions_on_a_wall(small)
            os.kill(pid, signal.SIGKILL)
            show.wait_for(lambda before=seen: len(taken) > before + 1)  # type: ignore[misc]
            assert show.pid() != pid
            assert numbers(small) == [2]  # a new tracker would give 1, and one without the state 3
        assert not any(one.lesions.failure for one in taken)


@pytest.mark.slow
def test_a_hang_in_the_network() -> None:
    limits = SupervisorLimits(
        max_staleness_s=0.5, pulse_s=2.0, hang_s=2.5, watchdog_s=5.0, settle_s=0.0, backoff_s=0.02
    )
    with live(limits=limits) as show:
        show.wait(AiState.ON)
        show.command(commanded.HANG)
        show.wait(AiState.OFF, "too slow")
        show.wait(AiState.OFF, "inference hangs")
        show.rgb = show.healthy
        show.wait(AiState.ON)


@pytest.mark.slow
def test_a_slow_network_is_off_and_is_not_restarted() -> None:
    limits = SupervisorLimits(max_staleness_s=0.2, pulse_s=2.0, hang_s=10.0, watchdog_s=5.0)
    with live(limits=limits) as show:
        show.wait(AiState.ON)
        pid = show.pid()
        show.command(commanded.SLOW)
        show.wait(AiState.OFF, "too slow")
        time.sleep(1.5)
        assert show.supervisor.state == (AiState.OFF, "too slow")
        show.rgb = show.healthy
        show.wait(AiState.ON)
        assert show.pid() == pid and show.supervisor.counts["restarts"] == 0


@pytest.mark.slow
def test_stopped_for_a_moment() -> None:
    limits = SupervisorLimits(max_staleness_s=5.0, pulse_s=0.5, hang_s=LONG_S, watchdog_s=5.0, settle_s=0.0)
    with live(limits=limits) as show:
        show.wait(AiState.ON)
        pid = show.pid()
        os.kill(pid, signal.SIGSTOP)
        show.wait(AiState.OFF, "worker does not answer")
        time.sleep(0.5)
        assert show.supervisor.state == (AiState.OFF, "worker does not answer")
        os.kill(pid, signal.SIGCONT)
        show.wait(AiState.ON)
        assert show.pid() == pid
        reasons = show.log.details("ai off")
        assert reasons.index("self-test") > reasons.index("worker does not answer")


@pytest.mark.slow
def test_stopped_for_good_is_killed_and_replaced() -> None:
    limits = SupervisorLimits(max_staleness_s=5.0, pulse_s=0.5, hang_s=1.5, watchdog_s=5.0, settle_s=0.0)
    with live(limits=limits) as show:
        show.wait(AiState.ON)
        pid = show.pid()
        os.kill(pid, signal.SIGSTOP)
        show.wait(AiState.OFF, "worker does not answer")
        show.wait_for(lambda: is_gone(pid))
        show.wait(AiState.ON)
        assert show.pid() != pid


@pytest.mark.slow
def test_closed_while_the_worker_is_stopped() -> None:
    with live(limits=SupervisorLimits(hang_s=LONG_S)) as show:
        show.wait_for(lambda: show.supervisor.counts["results"] > 0)
        os.kill(show.pid(), signal.SIGSTOP)
        began = time.monotonic()
        show.supervisor.close()
        assert time.monotonic() - began < 10


def kill_in_a_row(show: Live, times: int) -> None:
    """At any moment of its life, with a full recovery at the end."""
    show.wait(AiState.ON)
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(times):
        show.wait_for(lambda: show.supervisor.pid is not None)
        time.sleep((number % 5) * 0.05)  # while it starts, mostly; every so often when it is at work
        if number % 20 == 0:
            show.wait(AiState.ON)
        pid = show.pid()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        show.wait_for(lambda gone=pid: show.supervisor.pid != gone)  # type: ignore[misc]
    show.wait(AiState.ON)
    assert show.supervisor.counts["restarts"] == show.supervisor.counts["fault: worker was killed"] == times
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3
    assert max(show.gaps_s) < 5


def test_killed_again_and_again() -> None:
    with live() as show:
        kill_in_a_row(show, 8)


def test_killed_while_it_restarts_waits_longer_each_time() -> None:
    limits = SupervisorLimits(backoff_s=0.05, backoff_max_s=0.2)
    with live(lambda: None, limits=limits) as show:  # cannot even be pickled
        show.wait_for(lambda: show.supervisor.counts["faults"] >= 5)
        waits = [facts["restart_after_s"] for kind, _, facts in show.log.lines if kind == "worker fault"]
    assert waits[:5] == [0.05, 0.1, 0.2, 0.2, 0.2]
    assert show.log.details("worker fault")[0] == "worker cannot be run"


def test_a_worker_that_had_been_ready_is_not_waited_for_long() -> None:
    limits = replace(PATIENT, backoff_s=0.02, backoff_max_s=5.0, backoff_ready_max_s=0.03)
    with live(limits=limits) as show:
        for _ in range(4):
            show.wait(AiState.ON)
            os.kill(show.pid(), signal.SIGKILL)
            show.wait(AiState.OFF)
        waits = [facts["restart_after_s"] for kind, _, facts in show.log.lines if kind == "worker fault"]
    assert waits == [0.02, 0.03, 0.03, 0.03]


@pytest.mark.slow
def test_model_file_deleted(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.touch()
    with live(functools.partial(commanded.load_from, file)) as show:
        show.wait(AiState.ON)
        file.unlink()
        time.sleep(0.3)
        assert show.supervisor.state[0] is AiState.ON  # what is loaded is loaded
        os.kill(show.pid(), signal.SIGKILL)
        show.wait(AiState.OFF, "model cannot be loaded")
        show.wait_for(lambda: show.supervisor.counts.get("fault: model cannot be loaded", 0) >= 2)
        assert show.supervisor.load_error is None  # it could be loaded once
        file.touch()
        show.wait(AiState.ON)


@pytest.mark.slow
def test_another_model_in_its_place_fails_the_self_test(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.touch()
    with live(functools.partial(commanded.load_from, file)) as show:
        show.wait(AiState.ON)
        file.write_text("0.3", encoding="utf-8")
        os.kill(show.pid(), signal.SIGKILL)
        show.wait(AiState.OFF, "self-test failed")
        show.wait_for(lambda: show.supervisor.counts.get("fault: self-test failed", 0) >= 2)
        assert len(show.log.details("ai on")) == 1
        file.write_text("", encoding="utf-8")
        show.wait(AiState.ON)


def test_a_network_that_goes_wrong_while_there_is_no_frame_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "drift"
    file.touch()
    options = WorkerOptions(idle_test_s=0.05)
    with live(functools.partial(commanded.DriftingRunner, file), options) as show:
        show.wait(AiState.ON)
        show.held = True
        file.write_text("0.3", encoding="utf-8")
        show.wait(AiState.OFF, "self-test failed")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with live(functools.partial(commanded.load_from, tmp_path / "model")) as show:
        show.wait(AiState.OFF, "model cannot be loaded")
        error = show.supervisor.load_error
        assert isinstance(error, VmklaError)
        assert (error.exit_status, error.hint) == (3, "Fetch it again.")
        assert "there is no model file" in error.message
        assert str(tmp_path) not in "".join(detail for _, detail, _ in show.log.lines)


@pytest.mark.slow
def test_a_wrong_self_test_is_never_on() -> None:
    wrong = known_output(CommandedRunner(drift=0.5))
    with live(functools.partial(CommandedRunner, wrong)) as show:
        show.wait_for(lambda: show.supervisor.counts.get("fault: self-test failed", 0) >= 2)
        assert not show.log.details("ai on")


@pytest.mark.parametrize(
    ("load", "options", "words"),
    [
        (functools.partial(CommandedRunner, batch=4), WorkerOptions(), "fixed batch of 4"),
        (
            functools.partial(CommandedRunner, classes=3),
            WorkerOptions(point=PointOverrides(0.4)),
            "3 classes",
        ),
    ],
)
def test_networks_that_do_not_suit(load: Any, options: WorkerOptions, words: str) -> None:
    with live(load, options) as show:
        show.wait_for(lambda: show.supervisor.load_error is not None)
        assert words in str(show.supervisor.load_error)


@pytest.mark.slow
def test_a_result_that_cannot_be_used_ends_the_worker_and_not_the_watch() -> None:
    taken: list[LiveResult] = []

    def take(result: LiveResult) -> None:
        taken.append(result)
        if len(taken) == 1:
            raise KeyError("drawing")

    with live(on_result=take) as show:
        show.wait_for(lambda: show.supervisor.counts["faults"] == 1)
        show.wait(AiState.ON)
        assert show.log.details("worker fault") == ["worker cannot be run"]


@pytest.mark.slow
def test_ctrl_c_is_the_display_processes_business() -> None:
    with live() as show:
        show.wait(AiState.ON)
        os.kill(show.pid(), signal.SIGINT)
        time.sleep(0.5)
        assert show.supervisor.state[0] is AiState.ON and show.supervisor.counts["faults"] == 0


_DISPLAY = """
import sys, time
from tests.faults.commanded import CommandedRunner
from vmkla.video.live.shared_memory.ring import FrameRing
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.network.supervisor import Supervisor

class Log:
    def add(self, kind, detail="", **facts):
        if kind == "worker ready":
            print(supervisor.pid, flush=True)

if __name__ == "__main__":
    supervisor = Supervisor(CommandedRunner, WorkerOptions(), FrameRing(), Log())
    supervisor.start()
    {then}
"""


@pytest.mark.parametrize(
    ("then", "stopped"),
    [("time.sleep(600)", False), pytest.param("sys.stdin.read(1)", True, marks=pytest.mark.slow)],
)
def test_the_worker_goes_with_the_display_process(tmp_path: Path, then: str, stopped: bool) -> None:
    program = tmp_path / "display.py"
    program.write_text(FIND_TESTS + _DISPLAY.format(then=then), encoding="utf-8")
    display = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert display.stdin is not None and display.stdout is not None
    with display:
        pid = int(display.stdout.readline())
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        if "stdin" in then:
            display.stdin.write(b"x")  # ends without closing anything
            display.stdin.flush()
            assert display.wait(LONG_S) == 0
        else:
            display.kill()
    until = time.monotonic() + LONG_S
    while not is_gone(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_real_network() -> None:
    with live(functools.partial(load_runner, "nano", threads=1)) as show:
        show.wait(AiState.ON)
        os.kill(show.pid(), signal.SIGKILL)
        show.wait(AiState.OFF, "worker was killed")
        show.wait(AiState.ON)
        about = show.supervisor.describe()
        assert about["self_test"] == "stored in the file" and about["model"]["name"] == "nano"
        assert show.supervisor.counts["restarts"] == 1


@pytest.mark.slow
def test_the_real_network_killed_a_hundred_times_in_a_row() -> None:
    with live(functools.partial(load_runner, "nano", threads=1)) as show:
        kill_in_a_row(show, 100)


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Within it, the system gives this process so many more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = sorted(set(range(1024)) - used)[count]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_worker_that_cannot_be_started_keeps_no_descriptor() -> None:
    """Whichever of them is the one that the system refuses."""
    ring = FrameRing(slots=4)
    resource_tracker.ensure_running()
    for count in range(64):
        before = os.listdir("/proc/self/fd")
        try:
            with free_descriptors(count), contextlib.closing(ring.subscribe()) as reader:
                generation = Generation(CommandedRunner, WorkerOptions(), None, KeptTracker(), reader)
        except OSError as error:
            assert error.errno == errno.EMFILE
        else:
            generation.kill()
            break
        ring.publish(LiveFrame(1, time.monotonic(), np.zeros((8, 8, 3), np.uint8)))  # closes what left
        assert os.listdir("/proc/self/fd") == before, count
    assert 9 < count < 63
    ring.close()


def test_too_many_open_files_are_a_message_and_a_retry() -> None:
    with live() as show:
        show.wait(AiState.ON)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # none, and those that are open stay
        try:
            os.kill(show.pid(), signal.SIGKILL)
            show.wait_for(lambda: show.log.details("worker fault").count("too many open files") > 2)
            assert show.supervisor.state == (AiState.OFF, "too many open files")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        show.wait(AiState.ON)
