"""Is the signal good: frames come, they are not black, and they are not the same one again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.video.live.frame import SignalState

_ROWS_STEP = 16  # one row in so many is looked at


@dataclass(frozen=True)
class HealthLimits:
    """When a signal is not good.

    Attributes:
        stall_s: without a frame for longer, it is lost.
        black_s: dark for longer, it is black. One dark frame is a switch, not a state.
        black_level: no channel of any pixel looked at is brighter, 0 to 255. Black is 16 in video and 0 in
            RGB; the rest is room for noise. Scopes with the lamp off give about 5, a colon's darkest
            frames have highlights above 100.
        frozen_s: frames that are the same to the bit for longer are frozen: a camera's noise differs.
    """

    stall_s: float = 0.5
    black_s: float = 0.2
    black_level: int = 24
    frozen_s: float = 1.0


class SignalHealth:
    """Follows the frames of one source. ``see`` is one thread's; ``state`` may be asked by any.

    Args:
        limits: see ``HealthLimits``.
    """

    def __init__(self, limits: HealthLimits) -> None:
        self._limits = limits
        self._last: npt.NDArray[np.uint8] | None = None
        self._last_rows: npt.NDArray[np.uint8] | None = None
        self._dark_since_s: float | None = None
        self._same_since_s: float | None = None
        self._seen: tuple[float, SignalState] | None = None

    def see(self, rgb: npt.NDArray[np.uint8], captured_s: float) -> None:
        """Take note of a frame: (H, W, 3) uint8, captured at ``captured_s``."""
        rows = rgb[::_ROWS_STEP].copy()  # together in memory, so that comparing them is quick
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
        """The source is gone: what comes next is not compared with what was before."""
        self._last = self._last_rows = self._seen = None
        self._dark_since_s = self._same_since_s = None

    def state(self, now_s: float) -> SignalState:
        """The signal's state at ``now_s``, seconds of ``time.monotonic()``."""
        seen = self._seen
        if seen is None or now_s - seen[0] > self._limits.stall_s:
            return SignalState.LOST
        return seen[1]

    def _same(self, rgb: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> bool:
        if self._last is None or self._last_rows is None or self._last.shape != rgb.shape:
            return False
        # The rows looked at differ in nearly every frame, and only when they do not is all compared.
        return np.array_equal(rows, self._last_rows) and np.array_equal(rgb, self._last)

    def _judge(self, now_s: float) -> SignalState:
        if self._dark_since_s is not None and now_s - self._dark_since_s >= self._limits.black_s:
            return SignalState.BLACK
        if self._same_since_s is not None and now_s - self._same_since_s > self._limits.frozen_s:
            return SignalState.FROZEN
        return SignalState.GOOD
