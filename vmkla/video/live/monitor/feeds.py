"""The content of the page, made once for all readers: the newest status and the newest frame as JPEG."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.video.live.monitor.status import read_status

if TYPE_CHECKING:
    from vmkla.video.live.frame import LiveFrame
    from vmkla.video.live.shared_memory.board import Board
    from vmkla.video.live.shared_memory.ring import RingReader

BELIEVED_S = 1.0
"""Age beyond which a status or frame is not shown, seconds: an old "AI ON" must not look current."""

MAX_FRAMES_PER_S = 10.0
MAX_SIDE_PX = 960
_JPEG_QUALITY = 82
_STATUS_KEPT_S = 0.05


class StatusFeed:
    """The newest status as JSON text.

    Args:
        board: board that the display process writes.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._status: dict[str, Any] | None = None
        self._answer = b""
        self._made_s = float("-inf")

    def answer(self) -> bytes:
        """Return ``{"live": ..., "age_ms": ..., "status": ...}``; the status is null when it is too old."""
        now_s = time.monotonic()
        if now_s - self._made_s > _STATUS_KEPT_S:
            self._read()
            self._made_s = now_s
            self._answer = json.dumps(self._document(now_s), separators=(",", ":")).encode("ascii")
        return self._answer

    def _read(self) -> None:
        text = self._board.read()
        if text is None:
            return
        try:
            self._status = read_status(text)
        except BadInputError:
            self._status = None  # the page then shows no status

    def _document(self, now_s: float) -> dict[str, Any]:
        if self._status is None:
            return {"live": False, "age_ms": None, "status": None}
        age_s = now_s - float(self._status["written_s"])
        live = age_s <= BELIEVED_S
        shown = {name: value for name, value in self._status.items() if name != "written_s"}
        return {"live": live, "age_ms": round(age_s * 1e3), "status": shown if live else None}


@dataclass(frozen=True, eq=False)
class Jpeg:
    """A frame as JPEG.

    Attributes:
        data: bytes of the JPEG file.
        sequence: number of the frame.
        captured_s: capture time of the frame, seconds of ``time.monotonic()``.
    """

    data: bytes
    sequence: int
    captured_s: float


class FrameFeed:
    """The newest frame, encoded on request, at most ``MAX_FRAMES_PER_S`` times a second for all readers.

    Args:
        reader: reader of the frames as shown.
    """

    def __init__(self, reader: RingReader) -> None:
        self._reader = reader
        self._newest: Jpeg | None = None
        self._made_s = float("-inf")
        self._making: asyncio.Task[None] | None = None

    async def newest(self) -> Jpeg | None:
        """Return the newest frame; None when it is too old or missing."""
        if self._making is None and time.monotonic() - self._made_s >= 1 / MAX_FRAMES_PER_S:
            self._making = asyncio.create_task(self._make())
        if self._making is not None:
            # Shielded: the first caller may leave while others wait.
            await asyncio.shield(self._making)
        newest = self._newest
        return newest if newest and time.monotonic() - newest.captured_s <= BELIEVED_S else None

    async def _make(self) -> None:
        try:
            self._made_s = time.monotonic()
            made = await asyncio.get_running_loop().run_in_executor(None, self._encode)
            self._newest = made or self._newest
        finally:
            self._making = None

    def _encode(self) -> Jpeg | None:
        frame: LiveFrame | None = self._reader.latest()
        if frame is None:
            return None
        data = encode_jpeg(frame.rgb)
        return Jpeg(data, frame.sequence, frame.captured_s)


def encode_jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    """Encode a JPEG file without metadata, its longer side at most ``MAX_SIDE_PX``.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    if scale < 1:
        size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        rgb = np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, "OpenCV encodes any 8-bit image"
    return data.tobytes()
