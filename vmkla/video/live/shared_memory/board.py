"""Shared memory for the newest message from one process to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from vmkla.video.live.shared_memory.ring import WaitingReader, Waker
from vmkla.video.live.shared_memory.slots import OverwrittenError, SharedSlots, TornError

_SLOTS = 4

Piece = bytes | bytearray | memoryview | np.ndarray[Any, Any]


class Board(WaitingReader):
    """Holds one message, replaced by each newer one. One process writes, one reads, and neither waits.

    Either end may be pickled into a process that is being started. A message from before the reader's first
    look is returned as well, but only the newest.

    Args:
        capacity_bytes: size of the largest message; only the used part takes memory.

    Attributes:
        torn: number of messages whose checksum or numbers did not match; none of them was returned.
    """

    def __init__(self, capacity_bytes: int) -> None:
        waker = Waker()
        try:
            super().__init__(SharedSlots(_SLOTS, capacity_bytes), waker)
        except BaseException:
            waker.close()
            raise
        self.torn = 0

    def publish(self, *pieces: Piece) -> None:
        """Replace the message by these bytes, one piece after the other.

        Raises:
            VmklaError: there are more than ``capacity_bytes``.
        """
        self._slots.write([np.frombuffer(piece, np.uint8) for piece in pieces if len(piece)])
        self._waker.wake()

    def read(self) -> bytes | None:
        """Return the newest message that was not read yet; None when there is none."""
        while (newest := self._slots.newest) > self._seen:
            self._seen = newest
            try:
                return self._slots.read(newest).content.tobytes()
            except OverwrittenError:
                continue
            except TornError:
                self.torn += 1
        return None

    def close(self) -> None:
        """Release the memory; a second call does nothing."""
        self._waker.close()
        self._slots.close()
