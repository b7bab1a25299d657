"""Screens: a window, a file that records what was shown, or none."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import MissingDependencyError
from vmkla.files import create_file, output_errors
from vmkla.video.live.frame import LiveFrame, LiveStatus
from vmkla.video.live.line_log import LineLog
from vmkla.video.live.markers.marker_board import Marker
from vmkla.video.live.status_strip import DisplayBuffer

Image = npt.NDArray[np.uint8]

_ESCAPE = 27
_PROBE_S = 20.0


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame as it is shown.

    Attributes:
        sequence: number of the source's frame; 0 for the black frame in place of a lost signal.
        rgb: (H, W, 3) uint8 with the marker; the source's own array when there is none. Not to be changed.
        frame: the source's frame; None for a black frame in place of a lost signal.
        status: status shown in the strip.
        marker_sequence: number of the frame that the marker was computed from; also set when the network
            found nothing there, and the frame is covered without a marker.
        marker_age_ms: how much older that frame is than this one, ms.
        marker: the marker as drawn; None when the frame is not covered.
        again: whether this frame was shown before and only the strip is new.
    """

    sequence: int
    rgb: Image
    frame: LiveFrame | None
    status: LiveStatus
    marker_sequence: int | None = None
    marker_age_ms: float | None = None
    marker: Marker | None = None
    again: bool = False


class Screen(Protocol):
    """A screen. All calls come from one thread, which must be the main thread for a window."""

    @property
    def handed_over_s(self) -> float:
        """Time at which the last frame's complete display buffer was handed over, of ``time.monotonic()``."""

    @property
    def closed(self) -> bool:
        """Whether the user closed the screen, which ends the run."""

    def show(self, shown: Shown) -> None:
        """Show a frame and the strip below it."""

    def close(self) -> None:
        """Release the screen; a second call does nothing."""


class WindowScreen:
    """A window on the desktop. The keys q and Esc close it.

    The window shows the frame pixel for pixel until the user resizes it; then it scales.

    Args:
        title: title of the window.
    Raises:
        MissingDependencyError: OpenCV has no windows, or there is no display.
    """

    def __init__(self, title: str = "vmkla") -> None:
        _check_display()
        self.closed = False
        self.handed_over_s = 0.0
        self._title = title
        self._buffer = DisplayBuffer(bgr=True)
        self._size_hw: tuple[int, ...] = (0, 0)
        self._open = True
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)

    def show(self, shown: Shown) -> None:
        """See ``Screen``. The window is painted before this returns."""
        pixels = self._buffer.compose(shown.rgb, shown.status)
        if pixels.shape[:2] != self._size_hw:
            self._size_hw = pixels.shape[:2]
            cv2.resizeWindow(self._title, pixels.shape[1], pixels.shape[0])
        cv2.imshow(self._title, pixels)
        key = cv2.pollKey()
        self.handed_over_s = time.monotonic()
        if key & 0xFF in (ord("q"), _ESCAPE) and key >= 0:
            self.closed = True
        elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            self.closed = True

    def close(self) -> None:
        """See ``Screen``."""
        if self._open:
            self._open = False
            if cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1:
                cv2.destroyWindow(self._title)
            cv2.pollKey()


class FileScreen:
    """Writes a line with checksums for each frame that would be shown.

    A line has ``sequence``, ``ai``, ``ai_reason``, ``signal``, ``recording``, ``again``, ``size_hw``,
    ``marker_sequence``, ``marker_age_ms``, ``marked`` (whether pixels were drawn), ``captured_s`` and
    ``shown_s`` (``time.monotonic()``), and CRC-32 sums of the frame's rows: ``crc32`` in the display buffer,
    ``crc32_source`` as captured, and ``crc32_outside`` and ``crc32_source_outside`` of the same with the
    marker's pixels blanked, which are equal when no other pixel changed. The sums are computed after the
    frame was handed over.

    Args:
        path: the file of lines, readable by its owner only.
        raw: a file for the display buffers themselves, with the strip, one after the other; each line then
            has ``raw_offset`` and ``raw_hw``. ``show`` waits for writing it: it is for tests.
    Raises:
        BadInputError: a file cannot be created.
    """

    closed = False

    def __init__(self, path: Path, raw: Path | None = None) -> None:
        self.handed_over_s = 0.0
        self._lines = LineLog(path)
        self._buffer = DisplayBuffer()
        self._raw: Any = None
        if raw is not None:
            with output_errors(raw):
                self._raw = open(create_file(raw), "wb")

    @property
    def unwritten(self) -> tuple[int, str]:
        """Number of lines that are not in the file, and why the first of them is missing."""
        return self._lines.unwritten, self._lines.unwritten_because

    def show(self, shown: Shown) -> None:
        """See ``Screen``."""
        pixels = self._buffer.compose(shown.rgb, shown.status)
        self.handed_over_s = time.monotonic()
        line = _line(shown, self.handed_over_s, pixels[: shown.rgb.shape[0]])
        if self._raw is not None:
            line |= {"raw_offset": self._raw.tell(), "raw_hw": list(pixels.shape[:2])}
            self._raw.write(pixels)
            self._raw.flush()
        self._lines.put(line)

    def close(self) -> None:
        """See ``Screen``."""
        self._lines.close()
        if self._raw is not None:
            self._raw.close()
            self._raw = None


def _line(shown: Shown, shown_s: float, rows: Image) -> dict[str, Any]:
    """Return a line of ``FileScreen``; ``rows`` are the frame's rows in the display buffer."""
    status, marker, frame = shown.status, shown.marker, shown.frame
    marked = marker is not None and bool(marker.drawing.layers)
    line: dict[str, Any] = {
        "sequence": shown.sequence,
        "ai": status.ai.value,
        "ai_reason": status.ai_reason,
        "signal": status.signal.value,
        "recording": status.recording,
        "again": shown.again,
        "size_hw": list(rows.shape[:2]),
        "marker_sequence": shown.marker_sequence,
        "marker_age_ms": None if shown.marker_age_ms is None else round(shown.marker_age_ms, 3),
        "marked": marked,
        "captured_s": None if frame is None else frame.captured_s,
        "shown_s": shown_s,
        "crc32": zlib.crc32(rows.data),
    }
    if frame is not None:
        line["crc32_source"] = zlib.crc32(np.ascontiguousarray(frame.rgb).data)
        outside, source_outside = line["crc32"], line["crc32_source"]
        if marker is not None and marked:
            covered = marker.drawing.covered()
            outside, source_outside = _crc_outside(rows, covered), _crc_outside(frame.rgb, covered)
        line |= {"crc32_outside": outside, "crc32_source_outside": source_outside}
    return line


def _crc_outside(rgb: Image, covered: npt.NDArray[np.bool_]) -> int:
    blanked = rgb.copy()
    blanked[covered] = 0
    return zlib.crc32(blanked.data)


def _check_display() -> None:
    """Try a window in a process of its own, since the window system ends the process where no display is.

    The process imports in this process's order. PyAV's wheels bring a libxcb, as OpenCV's do, and with PyAV's
    loaded first ``namedWindow`` never returns and ignores signals (av 18.1.0, opencv-python 5.0.0.93).
    """
    order = [name for name in sys.modules if name in ("av", "cv2")]
    code = f"import {', '.join(order)}; cv2.namedWindow('vmkla'); cv2.pollKey()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        hint = "Import cv2 before av, or open the window first." if order[0] == "av" else None
        raise MissingDependencyError(f"no window opened within {_PROBE_S:g} s", hint=hint) from error
    if done.returncode == 0:
        return
    reported = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if "not implemented" in done.stderr:
        raise MissingDependencyError(
            "this OpenCV was built without windows",
            hint="Run: pip uninstall opencv-python-headless && pip install --force-reinstall opencv-python",
        )
    raise MissingDependencyError(
        f"no window can be opened: {reported[0] if reported else f'status {done.returncode}'}",
        hint="Run it on the desktop (DISPLAY must name it), or leave --display out.",
    )
