"""What reaches the display buffer: the frame's own pixels, and below them what may be believed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.video.live.screens import NullScreen
from vmkla.errors import MissingDependencyError
from vmkla.segment.findings import Findings, Region
from vmkla.video.live.frame import AiState, LiveFrame, LiveResult, LiveStatus, SignalState
from vmkla.video.live.markers.marker_board import MarkerBoard
from vmkla.video.live.screen import FileScreen, Screen, Shown, WindowScreen
from vmkla.video.live.status_strip import DisplayBuffer, draw_strip, no_signal_frame, strip_height_px

ON = LiveStatus(AiState.ON)
STATES = [
    ON,
    LiveStatus(AiState.OFF, "worker ended"),
    LiveStatus(AiState.OFF, "too slow"),
    LiveStatus(AiState.STARTING, "loading the model"),
    LiveStatus(AiState.OFF, "no signal", SignalState.LOST),
    LiveStatus(AiState.OFF, "black picture", SignalState.BLACK),
    LiveStatus(AiState.OFF, "frozen picture", SignalState.FROZEN),
    LiveStatus(AiState.ON, recording=True),
    LiveStatus(AiState.ON, recording=False),
    LiveStatus(AiState.PAUSED, "poor picture: blur"),
]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def shown(rgb: np.ndarray, status: LiveStatus = ON, sequence: int = 1) -> Shown:
    return Shown(sequence, rgb, LiveFrame(sequence, time.monotonic(), rgb), status)


def marked(rgb: np.ndarray) -> Shown:
    """A frame with a box in its middle as a finding."""
    height, width = rgb.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    from vmkla.segment.preprocess import Rect

    box = Rect(width // 4, height // 4, width // 2 - width // 4, height // 2 - height // 4)
    area = int(mask.sum())
    findings = Findings(mask, (Region(box, area, 1, 0.9, 0.9),), 0.9)
    frame = LiveFrame(3, 10.0, rgb)
    board = MarkerBoard()
    marker = board.prepare(LiveResult(3, 10.0, 10.01, (height, width), findings, {}))
    drawn_rgb, drawn = board.draw(frame, marker)
    assert drawn is not None
    return Shown(3, drawn_rgb, frame, ON, drawn.sequence, 0.0, drawn)


@pytest.mark.parametrize("size_hw", [(360, 480), (1080, 1920), (33, 65), (64, 40)])
@pytest.mark.parametrize("bgr", [False, True])
def test_the_frame_rows_are_the_frame_and_the_strip_lies_below(size_hw: tuple[int, int], bgr: bool) -> None:
    rgb = noise(*size_hw)
    rgb.flags.writeable = False
    buffer = DisplayBuffer(bgr=bgr)
    for status in STATES:
        pixels = buffer.compose(rgb, status)
        assert pixels.shape == (size_hw[0] + strip_height_px(size_hw[0]), size_hw[1], 3)
        assert np.array_equal(pixels[: size_hw[0]], rgb[..., ::-1] if bgr else rgb)


def test_each_state_looks_different_from_all_others() -> None:
    strips = [draw_strip(status, 32, 640) for status in STATES]
    for index, first in enumerate(strips):
        for second in strips[index + 1 :]:
            assert np.abs(first.astype(int) - second).max(axis=2).astype(bool).sum() > 40
    # On a narrow strip the words are smaller or left out; the colour of the badge remains.
    narrow = [draw_strip(status, 24, 48)[1, 1] for status in STATES[:2]]
    assert not np.array_equal(*narrow)


def test_what_the_strip_says_follows_status_and_size() -> None:
    buffer = DisplayBuffer()
    small, large = noise(120, 160), noise(240, 320)
    on = buffer.compose(small, ON).copy()
    off = buffer.compose(small, STATES[1]).copy()
    assert not np.array_equal(on[120:], off[120:])
    assert np.array_equal(off[120:], draw_strip(STATES[1], strip_height_px(120), 160))
    bigger = buffer.compose(large, STATES[1])
    assert np.array_equal(bigger[240:], draw_strip(STATES[1], strip_height_px(240), 320))


def test_no_signal_is_black_with_words() -> None:
    frame = no_signal_frame(360, 480)
    lit = frame.any(axis=2)
    assert 0.005 < lit.mean() < 0.1
    rows, columns = np.nonzero(lit)
    assert abs(rows.mean() - 180) < 20 and abs(columns.mean() - 240) < 20


def test_a_file_screen_says_what_was_in_the_display_buffer(tmp_path: Path) -> None:
    screen = FileScreen(tmp_path / "frames.jsonl", tmp_path / "raw.bin")
    rgb = noise(120, 160)
    screen.show(shown(rgb, STATES[1]))
    screen.show(marked(rgb))
    screen.show(Shown(0, no_signal_frame(120, 160), None, STATES[4]))
    screen.close()
    screen.close()
    plain, with_marker, black = (json.loads(line) for line in open(tmp_path / "frames.jsonl"))
    assert (tmp_path / "frames.jsonl").stat().st_mode & 0o777 == 0o600
    assert plain["crc32"] == plain["crc32_source"] == zlib.crc32(rgb) == plain["crc32_outside"]
    assert plain["ai"] == "off" and plain["ai_reason"] == "worker ended" and not plain["marked"]
    assert plain["shown_s"] >= plain["captured_s"]
    assert with_marker["marked"] and with_marker["marker_sequence"] == 3
    assert with_marker["crc32"] != with_marker["crc32_source"]
    assert with_marker["crc32_outside"] == with_marker["crc32_source_outside"]
    assert black["sequence"] == 0 and black["signal"] == "lost" and "crc32_source" not in black
    raw = (tmp_path / "raw.bin").read_bytes()
    height, width = plain["raw_hw"]
    first = np.frombuffer(raw, np.uint8, height * width * 3, plain["raw_offset"]).reshape(height, width, 3)
    assert np.array_equal(first[:120], rgb)


def test_a_file_screen_tells_a_pixel_that_was_changed_outside_the_marker(tmp_path: Path) -> None:
    screen = FileScreen(tmp_path / "frames.jsonl")
    good = marked(noise(120, 160))
    spoilt = good.rgb.copy()
    spoilt[0, 0, 0] ^= 1
    screen.show(dataclasses.replace(good, rgb=spoilt))
    screen.close()
    (line,) = (json.loads(text) for text in open(tmp_path / "frames.jsonl"))
    assert line["crc32_outside"] != line["crc32_source_outside"]


def test_a_null_screen_is_a_screen() -> None:
    screen: Screen = NullScreen()
    before = time.monotonic()
    screen.show(shown(noise(40, 60)))
    assert screen.handed_over_s >= before and not screen.closed
    screen.close()


# The window needs a display. Xvfb is one without a monitor; a window system that fails ends its process, so
# each test has one of its own.


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual display of 1280x800 in 24 bits."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    yield f":{number}"
    server.terminate()
    server.wait(20)


WINDOW = """
import subprocess, sys, time
import cv2, numpy as np
from vmkla.video.live.frame import AiState, LiveFrame, LiveStatus
from vmkla.video.live.screen import Shown, WindowScreen

rgb = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
screen = WindowScreen("a window")
{body}
"""


def in_a_window(display: str, body: str) -> str:
    """Run code with an open window and noise as ``rgb``; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", WINDOW.format(body=body)],
        env={**os.environ, "DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SHOW = """
def show(count, status=LiveStatus(AiState.ON), size=1):
    for number in range(count):
        frame = np.repeat(np.repeat(rgb, size, 0), size, 1)
        screen.show(Shown(1, frame, LiveFrame(1, time.monotonic(), frame), status))
        time.sleep(0.02)
"""


def test_the_window_shows_the_frames_own_pixels(display: str, tmp_path: Path) -> None:
    """Read back from the virtual display: each pixel of the frame, and the strip below it."""
    dump = tmp_path / "screen.xwd"
    body = f"""{SHOW}
show(75, LiveStatus(AiState.OFF, "worker ended"))
subprocess.run(["xwd", "-root", "-silent", "-out", {str(dump)!r}], check=True)
assert screen.handed_over_s > 0 and not screen.closed
screen.close(); screen.close()
"""
    in_a_window(display, body)
    root = read_xwd(dump)
    rgb = noise(360, 480)
    found = cv2.matchTemplate(root, rgb, cv2.TM_SQDIFF)
    _, _, (left, top), _ = cv2.minMaxLoc(found)
    assert np.array_equal(root[top : top + 360, left : left + 480], rgb)
    strip = root[top + 360 : top + 360 + strip_height_px(360), left : left + 480]
    wanted = draw_strip(LiveStatus(AiState.OFF, "worker ended"), strip_height_px(360), 480)
    assert np.array_equal(strip, wanted)


def read_xwd(path: Path) -> np.ndarray:
    """(H, W, 3) RGB of a dump by xwd: header of big-endian words, colours, pixels of 3 or 4 bytes, BGR."""
    data = path.read_bytes()
    header = np.frombuffer(data, ">u4", 25)
    size, width, height, bits, line_bytes, colours = (int(header[i]) for i in (0, 4, 5, 11, 12, 19))
    lines = np.frombuffer(data, np.uint8, offset=size + 12 * colours).reshape(height, line_bytes)
    pixels = lines[:, : bits // 8 * width].reshape(height, width, bits // 8)
    return np.ascontiguousarray(pixels[..., 2::-1])


def test_the_window_follows_the_frames_size(display: str) -> None:
    body = f"""{SHOW}
for size in (1, 2, 1):
    show(10, size=size)
    x, y, width, height = cv2.getWindowImageRect("a window")
    print(width, height)
"""
    sizes = [tuple(map(int, line.split())) for line in in_a_window(display, body).splitlines()]
    assert sizes[0] == sizes[2] and sizes[0][0] == 480 and sizes[1][0] == 960


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_keys_close_it(display: str, key: str) -> None:
    body = f"""{SHOW}
show(10)
assert not screen.closed
until = time.monotonic() + 60
while not screen.closed and time.monotonic() < until:
    subprocess.run(["xdotool", "search", "--name", "a window", "key", "--window", "%@", "{key}"], check=False)
    show(5)
print(screen.closed)
screen.close()
"""
    assert in_a_window(display, body).strip() == "True"


@pytest.mark.slow
def test_an_order_of_imports_that_hangs_windows_is_an_error(display: str) -> None:
    """Where the two libraries get on, the window opens; it waits for ever nowhere."""
    code = "import av\nfrom vmkla.video.live.screen import WindowScreen\nWindowScreen().close()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 or "MissingDependencyError: no window opened" in done.stderr, done.stderr


def test_without_a_display_it_is_an_error_and_not_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingDependencyError, match="no window can be opened"):
        WindowScreen()
