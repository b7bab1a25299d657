"""Frames for cameras of the tests, and how to wait for what a capture thread does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.sources.capture import Capture

DEADLINE_S = 20.0
"""Ten times and more of what anything here takes alone."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another thread does."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"not in {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.005)


def next_frame(capture: Capture) -> LiveFrame:
    """Wait for the next frame and return it."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        frame = capture.take(0.1)
        if frame is not None:
            return frame
    raise AssertionError(f"no picture in {DEADLINE_S:.0f} s; {capture.counts}, {capture.trouble}")


def take_all(capture: Capture) -> list[LiveFrame]:
    """Read every frame until a file ends."""
    frames = []
    end_s = time.monotonic() + DEADLINE_S
    while not capture.ended:
        assert time.monotonic() < end_s, "the file does not end"
        frame = capture.take(0.1)
        if frame is not None:
            frames.append(frame)
    return frames


def grainy(level: int, size_hw: tuple[int, int] = (48, 64)) -> npt.NDArray[np.uint8]:
    """A frame with a mean of ``level``, 25 to 230: noise, so that it has the kilobytes of a real one."""
    rng = np.random.default_rng(level)
    return (level + rng.integers(-25, 26, (*size_hw, 3))).astype(np.uint8)


class PipeCamera:
    """Writes frames as Motion JPEG into a named pipe, when a test says so.

    A reader has a frame whole when the next one begins, so each is written behind the one before it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._descriptor = -1

    def connect(self) -> None:
        """Wait for the reader."""

        def opened() -> bool:
            try:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return False
            return True

        wait_until(opened, "somebody reads the pipe")
        os.set_blocking(self._descriptor, True)

    def show(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Send a frame."""
        self.send(cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes())

    def send(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        os.write(self._descriptor, data)

    def hang_up(self) -> None:
        """Close the pipe."""
        os.close(self._descriptor)
