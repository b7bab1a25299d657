"""Files and rendered clips in place of a camera, at their own speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, UsageError
from vmkla.video.live.frame import MAX_FRAME_BYTES
from vmkla.video.live.sources.cameras import CameraContext, Shot, stream_facts
from vmkla.video.media.address import LiveAddress
from vmkla.video.media.clip import FPS, Scene
from vmkla.video.media.errors import reading_errors
from vmkla.video.media.rgb import RgbConverter
from vmkla.video.media.streams import OpenVideo

_LATE_S = 0.5  # delay beyond which playing continues without catching up: the process was stopped
_RENDERED_PX = 480 * 360  # takes about 45 ms to render; larger frames are enlarged from this size


class Pace:
    """Waits until a frame of a file is due, by the monotonic clock.

    Args:
        stop: event that ends a wait.
    """

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._origin_s: float | None = None

    def wait(self, position_s: float) -> float:
        """Wait until a position of the file is due.

        Args:
            position_s: position in the file, seconds.
        Returns:
            The time after the wait, seconds of ``time.monotonic()``.
        """
        now_s = time.monotonic()
        if self._origin_s is None or now_s - self._origin_s - position_s > _LATE_S:
            self._origin_s = now_s - position_s
        due_s = self._origin_s + position_s
        while now_s < due_s and not self._stop.wait(due_s - now_s):
            now_s = time.monotonic()
        return time.monotonic()


class FileCamera:
    """A video file, played by its time stamps.

    In a loop the file is opened again each time, so a replaced file is read at the next start.

    Args:
        address: address of the file.
        context: what the source needs from its owner.
        loop: start again when the file ends.
    """

    def __init__(self, address: LiveAddress, context: CameraContext, *, loop: bool) -> None:
        self._path = Path(address.target)
        self._context = context
        self._loop = loop
        self._video: OpenVideo | None = None
        self._facts: dict[str, Any] = {}

    def prepare(self) -> None:
        """Open the file once, to check that it holds a video."""
        self._open()
        self.close()

    def shots(self) -> Iterator[Shot]:
        """Yield frames when they are due; see ``Camera.shots``."""
        pace = Pace(self._context.stop)
        begin_s = 0.0
        while True:
            video = self._open()
            length_s = 0.0
            # Decoded while the previous frame is on the screen: a camera's frames come complete.
            for decoded, position_s, end_s in self._placed(video):
                length_s = end_s
                with reading_errors(video.described("its pixels cannot be converted")):
                    rgb, damaged = self._to_rgb(decoded)[0], bool(decoded.is_corrupt)
                captured_s = pace.wait(begin_s + position_s)
                if self._context.stop.is_set():
                    return
                yield Shot(captured_s, rgb, damaged)
                self._context.let_show()
            if not length_s:
                raise BadInputError(f"{self._path} has a video stream but not one frame that can be decoded")
            if not self._loop:
                return
            self.close()
            begin_s += length_s

    def close(self) -> None:
        """Close the file."""
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def describe(self) -> dict[str, Any]:
        """Describe codec, size, rate and track."""
        return dict(self._facts)

    def _open(self) -> OpenVideo:
        video = self._video = OpenVideo(self._path)
        self._to_rgb = RgbConverter()
        self._facts = {**stream_facts(video.stream), "track": video.track.number}
        if len(video.tracks) > 1:
            self._facts["tracks"] = [track.to_dict() for track in video.tracks]
        if video.extent.cut_off:
            self._facts["cut_off"] = f"{video.extent.size_bytes} of {video.extent.promised_bytes} bytes"
        return video

    def _placed(self, video: OpenVideo) -> Iterator[tuple[Any, float, float]]:
        """Yield decoded frames with the positions of their start and end in the file, seconds."""
        timeline = video.timeline()
        first = None
        frames = video.frames(self._lose)
        for decoded, ticks in timeline.placed(frames, lambda frame: frame.pts, video.source_base):
            first = ticks if first is None else first
            position = (ticks - first) * timeline.time_base
            yield decoded, float(position), float(position + video.frame_ticks * timeline.time_base)

    def _lose(self, where: str, what: str) -> None:
        self._context.drop("undecodable", f"{where} {what}")


class SampleCamera:
    """The rendered clip as an endless camera, played forward and backward so that it has no cut.

    It is rendered before the first frame; above 480x360 it is rendered smaller and enlarged, since a frame of
    1920x1080 would take nearly a second.

    Args:
        address: address with the options ``seed``, ``size``, ``fps`` and ``seconds`` (of rendered frames).
        context: what the source needs from its owner.
    """

    def __init__(self, address: LiveAddress, context: CameraContext) -> None:
        self._context = context
        self._width, self._height = address.size_wh or (480, 360)
        if 3 * self._width * self._height > MAX_FRAME_BYTES:
            raise UsageError(f"{address}: the largest frame is 3840x2160")
        self._fps = address.number("fps", 30)
        self._seed = int(address.number("seed", 8))
        self._count = max(2, round(address.number("seconds", 2) * self._fps))
        self._frames: list[npt.NDArray[np.uint8]] = []

    def prepare(self) -> None:
        """Render the clip, once."""
        if self._frames:
            return
        shrink = min(1.0, (_RENDERED_PX / (self._width * self._height)) ** 0.5)
        height, width = max(32, round(self._height * shrink)), max(32, round(self._width * shrink))
        if shrink == 1.0:
            height, width = self._height, self._width  # Scene rejects a size that is too small
        scene = Scene(self._seed, height, width)
        size_wh = (self._width, self._height)
        step = max(1.0, FPS / self._fps)  # above the clip's own rate the camera moves faster
        for index in range(self._count):
            rgb = scene.frame(round(index * step))[0]
            if shrink < 1.0:
                rgb = np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_CUBIC), np.uint8)
            self._frames.append(rgb)

    def shots(self) -> Iterator[Shot]:
        """Yield frames when they are due; see ``Camera.shots``."""
        pace = Pace(self._context.stop)
        number = 0
        while True:
            rgb = self._frames[self._place(number)].copy()
            captured_s = pace.wait(number / self._fps)
            if self._context.stop.is_set():
                return
            yield Shot(captured_s, rgb)
            self._context.let_show()
            number += 1

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def describe(self) -> dict[str, Any]:
        """Describe size, rate and seed."""
        return {
            "codec": "rendered",
            "size_wh": [self._width, self._height],
            "frame_rate": self._fps,
            "seed": self._seed,
        }

    def _place(self, number: int) -> int:
        """Return 0 1 2 3 2 1 0 1 ...: no frame twice in a row."""
        position = number % (2 * self._count - 2)
        return min(position, 2 * self._count - 2 - position)
