"""The status strip below the frame, which covers no pixel of the frame."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.video.live.frame import AiState, LiveStatus, SignalState

Image = npt.NDArray[np.uint8]

NO_SIGNAL = "NO SIGNAL"
SIGNAL_WORDS = {
    SignalState.GOOD: "",
    SignalState.BLACK: "BLACK PICTURE",
    SignalState.FROZEN: "FROZEN PICTURE",
    SignalState.LOST: NO_SIGNAL,
}
AI_WORDS = {
    AiState.ON: "AI ON",
    AiState.OFF: "AI OFF",
    AiState.PAUSED: "AI PAUSED",
    AiState.STARTING: "AI STARTING",
}

_GREEN, _RED, _AMBER = (0, 120, 60), (170, 20, 20), (190, 110, 0)
_AI_RGB = {AiState.ON: _GREEN, AiState.OFF: _RED, AiState.PAUSED: _AMBER, AiState.STARTING: _AMBER}
_GROUND_RGB, _TEXT_RGB, _DIM_RGB = (24, 24, 24), (255, 255, 255), (200, 200, 200)
_FONT, _FONT_PX = cv2.FONT_HERSHEY_SIMPLEX, 22  # height of a capital letter at scale 1
_LEAST_PX, _OF_FRAME = 24, 1 / 18


def strip_height_px(frame_height_px: int) -> int:
    """Return the height of the strip below a frame, px."""
    return max(_LEAST_PX, round(frame_height_px * _OF_FRAME))


def draw_strip(status: LiveStatus, height_px: int, width_px: int) -> Image:
    """Render the strip.

    From the left: the state of the AI in words on a colour, since some people cannot tell colours apart; why
    it is not on; on the right the problem of the signal, and whether frames are written.

    Args:
        status: status to show.
        height_px, width_px: size of the strip, px.
    Returns:
        (height_px, width_px, 3) uint8, RGB.
    """
    strip = np.full((height_px, width_px, 3), _GROUND_RGB, np.uint8)
    right = _draw_right(strip, status)
    badge = _Text(AI_WORDS[status.ai], height_px * 0.5, width_px * 0.4)
    margin = height_px // 4
    end = badge.width_px + 2 * margin
    strip[:, : min(end, width_px)] = _AI_RGB[status.ai]
    badge.draw(strip, margin, _TEXT_RGB)
    if status.ai_reason:
        room = right - end - 2 * margin
        reason = _Text(status.ai_reason, height_px * 0.42, max(room, 0))
        if reason.readable:
            reason.draw(strip, end + margin, _DIM_RGB)
    return strip


def no_signal_frame(height_px: int, width_px: int) -> Image:
    """Render the frame that is shown when the source gives nothing: black, with the words.

    An old frame must not be mistaken for a live one.

    Returns:
        (height_px, width_px, 3) uint8, RGB.
    """
    frame = np.zeros((height_px, width_px, 3), np.uint8)
    words = _Text(NO_SIGNAL, height_px * 0.08, width_px * 0.8)
    words.draw(frame, (width_px - words.width_px) // 2, _TEXT_RGB)
    return frame


class DisplayBuffer:
    """The pixels for the display: the rows of the frame, unchanged, and the strip below them."""

    def __init__(self, *, bgr: bool = False) -> None:
        self._bgr = bgr
        self._pixels = np.zeros((0, 0, 3), np.uint8)
        self._frame_hw: tuple[int, ...] = (0, 0)
        self._status: LiveStatus | None = None
        # OpenCV loads its font with the first text: 40 ms, for which no frame should wait.
        draw_strip(LiveStatus(AiState.STARTING), _LEAST_PX, 4 * _LEAST_PX)

    def compose(self, rgb: Image, status: LiveStatus) -> Image:
        """Compose a frame and its strip.

        Args:
            rgb: (H, W, 3) uint8, contiguous or not; not changed.
            status: status for the strip, which is drawn again only when it changes.
        Returns:
            (H + ``strip_height_px(H)``, W, 3) uint8 in the display's order of channels. The next call
            overwrites the same memory.
        """
        height_px, width_px = rgb.shape[:2]
        if (height_px, width_px) != self._frame_hw:
            self._frame_hw, self._status = (height_px, width_px), None
            self._pixels = np.empty((height_px + strip_height_px(height_px), width_px, 3), np.uint8)
        rows = self._pixels[:height_px]
        if self._bgr:
            cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR, dst=rows)
        else:
            np.copyto(rows, rgb)
        if status != self._status:
            strip = draw_strip(status, strip_height_px(height_px), width_px)
            self._pixels[height_px:] = strip[..., ::-1] if self._bgr else strip
            self._status = status
        return self._pixels


class _Text:
    """One line of text, at the wished size or as large as fits."""

    def __init__(self, words: str, capital_px: float, room_px: float) -> None:
        self._words = words.encode("ascii", "replace").decode()  # the font has no other letters
        self._capital_px = capital_px
        self._measure()
        if self.width_px > room_px:
            self._capital_px *= max(room_px, 1) / self.width_px
            self._measure()
        self.readable = self._capital_px >= 6

    def _measure(self) -> None:
        self._scale = self._capital_px / _FONT_PX
        self._line_px = max(1, round(self._capital_px / 9))
        size_wh, _ = cv2.getTextSize(self._words, _FONT, self._scale, self._line_px)
        self.width_px = int(size_wh[0])

    def draw(self, image: Image, left_px: int, colour_rgb: tuple[int, int, int]) -> None:
        base_px = round((image.shape[0] + self._capital_px) / 2)
        cv2.putText(
            image, self._words, (left_px, base_px), _FONT, self._scale, colour_rgb, self._line_px, cv2.LINE_AA
        )


def _draw_right(strip: Image, status: LiveStatus) -> int:
    """Draw signal and recording from the right; return the column where they begin."""
    height_px, width_px = strip.shape[:2]
    margin = height_px // 4
    right = width_px
    if status.recording is not None:
        words = _Text("REC" if status.recording else "REC STOPPED", height_px * 0.42, width_px * 0.2)
        right -= words.width_px + margin
        words.draw(strip, right, _TEXT_RGB)
        radius_px = max(2, height_px // 7)
        right -= 2 * radius_px + margin
        centre = (right + radius_px, height_px // 2)
        if status.recording:
            cv2.circle(strip, centre, radius_px, (230, 30, 30), -1, cv2.LINE_AA)
        else:
            cv2.circle(strip, centre, radius_px, _DIM_RGB, 1, cv2.LINE_AA)
    if signal := SIGNAL_WORDS[status.signal]:
        words = _Text(signal, height_px * 0.5, width_px * 0.35)
        right -= words.width_px + 3 * margin
        strip[:, right : right + words.width_px + 2 * margin] = _AMBER
        words.draw(strip, right + margin, _TEXT_RGB)
    return int(right)
