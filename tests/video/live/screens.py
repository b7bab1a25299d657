"""A screen that shows nothing, for tests."""

from __future__ import annotations

import time

from vmkla.video.live.screen import Shown
from vmkla.video.live.status_strip import DisplayBuffer


class NullScreen:
    """Composes the display buffer as a window does, and discards it."""

    closed = False

    def __init__(self) -> None:
        self.handed_over_s = 0.0
        self._buffer = DisplayBuffer()

    def show(self, shown: Shown) -> None:
        """See ``Screen``."""
        self._buffer.compose(shown.rgb, shown.status)
        self.handed_over_s = time.monotonic()

    def close(self) -> None:
        """See ``Screen``."""
