"""Check the signal: whether frames come, are not black, and are not all the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.video.live.frame import SignalState

_ROWS_STEP = 16  # one row in so many is checked


@dataclass(frozen=True)
class HealthLimits:
    """Limits of a good signal.

    Attributes:
        stall_s: time without a frame after which the signal is lost.
        black_s: time of dark frames after which the signal is black; a single one is a switch of the source.
        black_level: largest value, 0 to 255, of any channel in a dark frame. Black is 16 in video and 0 in
            RGB; the rest is room for noise. Scopes with the lamp off give about 5, a colon's darkest frames
            have highlights above 100.
        frozen_s: time of identical frames after which the signal is frozen: a camera's noise differs.
    """

    stall_s: float = 0.5
    black_s: float = 0.2
    black_level: int = 24
    frozen_s: float = 1.0


class SignalHealth:
    """Checks the frames of one source. One thread calls ``see``; any thread may call ``state``.

    Args:
        limits: limits of a good signal.
    """

    def __init__(self, limits: HealthLimits) -> None:
        self._limits = limits
        self._last: npt.NDArray[np.uint8] | None = None
        self._last_rows: npt.NDArray[np.uint8] | None = None
        self._dark_since_s: float | None = None
        self._same_since_s: float | None = None
        self._seen: tuple[float, SignalState] | None = None

    def see(self, rgb: npt.NDArray[np.uint8], captured_s: float) -> None:
        """Check a frame.

        Args:
            rgb: (H, W, 3) uint8.
            captured_s: capture time, seconds of ``time.monotonic()``.
        """
        rows = rgb[::_ROWS_STEP].copy()  # contiguous, so that comparing them is fast
        if int(rows.max()) > self._limits.black_level:
            self._dark_since_s = None
        elif self._dark_since_s is None:
            self._dark_since_s = captured_s
        if not self._same(rgb, rows) or self._same_since_s is None:
            self._same_since_s = captured_s
        self._last, self._last_rows = rgb, rows
        # One assignment, so that a reader sees time and state of the same frame.
        self._seen = captured_s, self._judge(captured_s)

    def lose(self) -> None:
        """Forget the frames so far, after the source was lost."""
        self._last = self._last_rows = self._seen = None
        self._dark_since_s = self._same_since_s = None

    def state(self, now_s: float) -> SignalState:
        """Return the state of the signal at ``now_s``, seconds of ``time.monotonic()``."""
        seen = self._seen
        if seen is None or now_s - seen[0] > self._limits.stall_s:
            return SignalState.LOST
        return seen[1]

    def _same(self, rgb: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> bool:
        if self._last is None or self._last_rows is None or self._last.shape != rgb.shape:
            return False
        # The checked rows differ in nearly every frame; only when they do not, the whole frame is compared.
        return np.array_equal(rows, self._last_rows) and np.array_equal(rgb, self._last)

    def _judge(self, now_s: float) -> SignalState:
        if self._dark_since_s is not None and now_s - self._dark_since_s >= self._limits.black_s:
            return SignalState.BLACK
        if self._same_since_s is not None and now_s - self._same_since_s > self._limits.frozen_s:
            return SignalState.FROZEN
        return SignalState.GOOD
