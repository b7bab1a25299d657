"""RTSP against a real server: GStreamer's, on the loopback interface; killed, restarted, stalled, resized."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.video.live.cameras import DEADLINE_S, next_frame, wait_until
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import SignalState
from vmkla.video.live.sources.cameras import CaptureLimits
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.sources.health import HealthLimits
from vmkla.video.live.sources.streaming import Backlog
from vmkla.video.media.address import parse_address

pytestmark = pytest.mark.slow

SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-gi belongs to
SQUARE_PX = 16
LIMITS = CaptureLimits(HealthLimits(stall_s=0.5), open_s=5.0, read_s=1.0, retry_s=0.05, retry_max_s=0.2)


class Server:
    """A camera of ``rtsp_server.py``."""

    def __init__(self, script: Path, *flags: str) -> None:
        self._script, self._flags = script, flags
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.start()

    def start(self, *flags: str) -> None:
        command = [SYSTEM_PYTHON, str(self._script), "--port", str(self.port), *self._flags, *flags]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


StartServer = Callable[..., Server]


@pytest.fixture
def serve(root: Path) -> Iterator[StartServer]:
    check = 'import gi; gi.require_version("GstRtspServer", "1.0")'
    if subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode:
        pytest.skip("no GStreamer RTSP server; apt-get install python3-gi gir1.2-gst-rtsp-server-1.0")
    servers: list[Server] = []

    def begin(*flags: str) -> Server:
        servers.append(Server(Path(__file__).with_name("rtsp_server.py"), *flags))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


@pytest.fixture
def events() -> EventLog:
    return EventLog(None)


@pytest.fixture
def start(events: EventLog) -> Iterator[Callable[[str], Capture]]:
    started: list[Capture] = []

    def begin(address: str) -> Capture:
        started.append(Capture(parse_address(address), events, limits=LIMITS))
        started[-1].start()
        return started[-1]

    yield begin
    for capture in started:
        capture.close()


def made_ms(rgb: npt.NDArray[np.uint8]) -> int:
    """The time that the server wrote into a frame."""
    middle = SQUARE_PX // 2
    rows = rgb[middle : 2 * SQUARE_PX : SQUARE_PX, middle : 16 * SQUARE_PX : SQUARE_PX, 1]
    return int("".join("1" if value > 128 else "0" for value in rows.ravel()), 2)


@pytest.mark.parametrize(("encoder", "transport"), [("h264", "tcp"), ("h264", "udp"), ("jpeg", "tcp")])
def test_frames_come_whole_and_at_once(
    serve: StartServer, start: Callable[[str], Capture], encoder: str, transport: str
) -> None:
    server = serve("--encoder", encoder)
    capture = start(f"rtsp://127.0.0.1:{server.port}/live#transport={transport}")
    frames = [next_frame(capture) for _ in range(40)]
    assert frames[-1].rgb.shape == (240, 320, 3)
    ages_ms = [frame.captured_s * 1000 - made_ms(frame.rgb) for frame in frames]
    # One frame's time in the reader and some for the machine; a reader that buffers is seconds behind.
    assert -1 <= min(ages_ms) and np.median(ages_ms) < 1000
    assert capture.signal is SignalState.GOOD
    assert capture.describe()["codec"] == {"h264": "h264", "jpeg": "mjpeg"}[encoder]


def test_stall_and_return(serve: StartServer, start: Callable[[str], Capture], events: EventLog) -> None:
    server = serve()
    capture = start(f"rtsp://127.0.0.1:{server.port}/live")
    next_frame(capture)
    server.say("stall")
    wait_until(lambda: capture.take(0.01) is None and capture.signal is SignalState.LOST, "a stall")
    wait_until(lambda: capture.take(0.01) is None and capture.trouble, "it was given up")
    server.say("go")
    frame = next_frame(capture)
    assert frame.captured_s * 1000 - made_ms(frame.rgb) < 5000  # none of before
    assert capture.signal is SignalState.GOOD
    assert "good became lost" in [event.detail for event in events.recent(50)]


def test_killed_and_restarted_with_another_size(
    serve: StartServer, start: Callable[[str], Capture], events: EventLog
) -> None:
    server = serve()
    capture = start(f"rtsp://127.0.0.1:{server.port}/live")
    last = next_frame(capture).sequence
    server.kill()
    wait_until(lambda: capture.take(0.01) is None and capture.signal is SignalState.LOST, "the loss")
    server.start("--size", "480x272")
    frame = next_frame(capture)
    assert frame.sequence > last and frame.rgb.shape == (272, 480, 3)
    assert capture.counts.opened == 2
    formats = [event.detail for event in events.recent(50) if event.kind == "source format"]
    assert formats == ["320x240 became 480x272"]


def test_another_size_in_flight(serve: StartServer, start: Callable[[str], Capture]) -> None:
    server = serve()
    capture = start(f"rtsp://127.0.0.1:{server.port}/live")
    next_frame(capture)
    server.say("size 400x304")
    wait_until(lambda: next_frame(capture).rgb.shape == (304, 400, 3), "the other size")
    frame = next_frame(capture)
    assert abs(frame.captured_s * 1000 - made_ms(frame.rgb)) < 5000
    assert capture.counts.opened == 1


def test_a_camera_that_is_switched_on_later(start: Callable[[str], Capture], serve: StartServer) -> None:
    server = serve()
    server.kill()
    capture = start(f"rtsp://127.0.0.1:{server.port}/live")
    wait_until(lambda: capture.trouble, "a first refusal")
    assert capture.take(0.01) is None and capture.signal is SignalState.LOST
    server.start()
    next_frame(capture)
    assert not capture.trouble


@pytest.mark.parametrize("password", ["s3cret", "wr0ng"])
def test_a_password_opens_and_is_never_told(
    serve: StartServer, start: Callable[[str], Capture], events: EventLog, password: str
) -> None:
    server = serve("--user", "me", "--password", "s3cret")
    capture = start(f"rtsp://me:{password}@127.0.0.1:{server.port}/live")
    if password == "s3cret":
        next_frame(capture)
        server.kill()
    wait_until(lambda: capture.take(0.01) is None and capture.trouble, "a loss or a refusal")
    told = str([event.to_dict() for event in events.recent(50)]) + str(capture.describe()) + capture.trouble
    assert password not in told and "127.0.0.1" in told


def test_closing_a_server_that_does_not_answer(start: Callable[[str], Capture]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        capture = start(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live")
        assert capture.take(0.3) is None
        begun_s = time.monotonic()
        capture.close()
        assert time.monotonic() - begun_s < DEADLINE_S / 2


class TestBacklog:
    def test_steady_frames_are_not_behind_whatever_the_clocks_say(self) -> None:
        backlog = Backlog()
        assert all(backlog.behind_s(i / 25, 5000 + i / 25 * 1.0005) < 0.1 for i in range(25 * 600))

    def test_what_waited_is_behind_until_it_is_caught_up(self) -> None:
        backlog = Backlog()
        for i in range(100):
            backlog.behind_s(i / 25, 100 + i / 25)
        # Nothing for three seconds, then what was sent meanwhile comes all at once.
        late = [backlog.behind_s(4 + i / 25, 107 + i / 1000) for i in range(75)]
        assert late[0] > 2.9 and late[-1] < 0.5 and late == sorted(late, reverse=True)

    def test_a_camera_that_sets_its_clock_starts_anew(self) -> None:
        backlog = Backlog()
        backlog.behind_s(0.0, 100.0)
        assert backlog.behind_s(100000.0, 101.0) == 0.0
        assert backlog.behind_s(100000.04, 101.04) < 0.01
