"""Deinterlace the network's copy of a live frame where the source is interlaced.

The frame on the screen is not changed. The lines of the lower field are interpolated between those of the
upper one, which needs no later frame and keeps every position in the frame.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.video.media.interlace import Deinterlace, check_deinterlace

COMBED = 0.002
"""Share of vertical zigzags from which a frame looks interlaced. Interlaced clips with motion have 0.005 to
0.18, progressive ones at most 0.0003."""
_DOWN_TO_ACROSS = 4.0
"""Required ratio of vertical to horizontal zigzags: noise has as many in both directions."""
_STEP, _TURNS = 8, 5
"""A zigzag is five steps, alternately up and down, of more than eight grey levels each."""
_ACROSS_PX = 240
_LOOK_EVERY_S, _STAYS_S = 0.1, 10.0
_LOOKS = 2
"""Number of checks in a row that must find combed edges: a single frame may be unusual."""


class LiveDeinterlacer:
    """Detects whether a source is interlaced, and deinterlaces its frames when it is.

    Args:
        wanted: ``"auto"`` decides by the frames: combed edges in two checks, 0.1 s apart, start it, and ten
            seconds without any end it. ``"yes"`` and ``"no"`` decide it.
    Raises:
        UsageError: ``wanted`` is another word.
    """

    def __init__(self, wanted: Deinterlace = "auto") -> None:
        check_deinterlace(wanted)
        self._wanted = wanted
        self._looked_s = self._combed_s = float("-inf")
        self._in_a_row = 0
        self._active = wanted == "yes"

    @property
    def active(self) -> bool:
        """Whether frames are deinterlaced now."""
        return self._active

    def of(self, rgb: npt.NDArray[np.uint8], captured_s: float) -> npt.NDArray[np.uint8]:
        """Return the frame itself, or a copy interpolated from its upper field.

        Args:
            rgb: (H, W, 3) uint8; not changed.
            captured_s: capture time, seconds of ``time.monotonic()``.
        """
        if self._wanted == "auto" and abs(captured_s - self._looked_s) >= _LOOK_EVERY_S:
            self._look(rgb, captured_s)
        return upper_field(rgb) if self._active else rgb

    def _look(self, rgb: npt.NDArray[np.uint8], captured_s: float) -> None:
        self._looked_s = captured_s
        if looks_interlaced(rgb):
            self._in_a_row += 1
            self._combed_s = captured_s
            self._active = self._active or self._in_a_row >= _LOOKS
        else:
            self._in_a_row = 0
            self._active = self._active and captured_s - self._combed_s < _STAYS_S


def looks_interlaced(rgb: npt.NDArray[np.uint8]) -> bool:
    """Check for combed edges, as in a frame of two fields with motion between them.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < 2 * _TURNS:
        return False
    down = _zigzags(rgb[:, :: max(1, width // _ACROSS_PX), 1])
    if down < COMBED:
        return False
    return down >= _DOWN_TO_ACROSS * _zigzags(rgb[:: max(1, height // _ACROSS_PX), :, 1].T)


def upper_field(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Replace the odd lines of a frame by the mean of the even lines beside them.

    Args:
        rgb: (H, W, 3) uint8; not changed.
    Returns:
        (H, W, 3) uint8, a copy.
    """
    whole = np.array(rgb, dtype=np.uint8)
    even = rgb[0::2]
    between = whole[1::2]
    inner = len(even) - 1  # odd lines with an even one on both sides
    if inner:
        between[:inner] = cv2.addWeighted(even[:-1], 0.5, even[1:], 0.5, 0)
    between[inner:] = even[inner : inner + len(between) - inner]
    return whole


def _zigzags(plane: npt.NDArray[np.uint8]) -> float:
    """Return the share of places where five steps along the first axis alternate between up and down."""
    steps = np.diff(plane.astype(np.int16), axis=0)
    up, down = steps > _STEP, steps < -_STEP
    places = len(steps) - _TURNS + 1
    first_up, first_down = np.ones((2, places, plane.shape[1]), np.bool_)
    for turn in range(_TURNS):
        window = slice(turn, turn + places)
        first_up &= (up if turn % 2 == 0 else down)[window]
        first_down &= (down if turn % 2 == 0 else up)[window]
    return float(np.count_nonzero(first_up | first_down)) / first_up.size
