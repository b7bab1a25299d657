"""Shared memory for the latest frames, from the display process to others, without waiting."""

from __future__ import annotations

import os
import select
import struct
import threading
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from vmkla.errors import VmklaError
from vmkla.video.live.frame import MAX_FRAME_BYTES, LiveFrame
from vmkla.video.live.shared_memory.slots import OverwrittenError, SharedSlots, Slot, TornError

_NOTE = struct.Struct("<QdIIBII")  # sequence, captured_s, height, width, damaged, first height and width


class Waker:
    """Wakes one waiting reader, in this process or another, without waiting itself."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __getstate__(self) -> dict[str, Any]:
        return {"fd": DupFd(self._fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._fd = state["fd"].detach()

    def fileno(self) -> int:
        """File descriptor for ``select.poll``: readable from ``wake`` until ``clear``."""
        return self._fd

    def wake(self) -> None:
        """Make ``wait`` return."""
        try:
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:
            return  # after 2^64 calls without a reader; the signal is set already

    def clear(self) -> None:
        """Clear the signal."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return  # it was not set

    def wait(self, timeout_s: float) -> None:
        """Wait for ``wake`` or the timeout."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll(max(0.0, timeout_s) * 1e3)
        self.clear()

    def close(self) -> None:
        """Release the descriptor; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class WaitingReader:
    """Base of what reads slots that a waker announces: it remembers the newest content that it has read."""

    def __init__(self, slots: SharedSlots, waker: Waker, seen: int = 0) -> None:
        self._slots = slots
        self._waker = waker
        self._seen = seen

    def fileno(self) -> int:
        """File descriptor for ``select.poll``: readable when content came since the last ``wait``."""
        return self._waker.fileno()

    def wait(self, timeout_s: float) -> bool:
        """Wait for content that was not read yet, and return whether there is some."""
        if self._slots.newest > self._seen:
            self._waker.clear()
            return True
        self._waker.wait(timeout_s)
        return self._slots.newest > self._seen


class RingReader(WaitingReader):
    """One reader of a ring. It may be pickled into a process that is being started.

    Attributes:
        missed: number of frames that were overwritten before ``next`` could return them.
        skipped: number of frames that ``latest`` skipped for a newer one.
        torn: number of frames whose checksum or numbers did not match; none of them was returned.
    """

    def __init__(self, slots: SharedSlots, waker: Waker, on_close: Callable[[], None]) -> None:
        super().__init__(slots, waker, max(0, slots.newest - 1))  # the newest frame is still returned
        self._on_close: Callable[[], None] | None = on_close
        self.missed = self.skipped = self.torn = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_close": None}

    def latest(self) -> LiveFrame | None:
        """Return a copy of the newest frame that was not read yet, skipping older ones; None without one."""
        while (newest := self._slots.newest) > self._seen:
            self.skipped += newest - self._seen - 1
            self._seen = newest
            try:
                return _to_frame(self._slots.read(newest))
            except OverwrittenError:
                self.skipped += 1
            except TornError:
                self.torn += 1
        return None

    def next(self) -> LiveFrame | None:
        """Return a copy of the oldest frame that was not read yet and still exists; None without one."""
        while (newest := self._slots.newest) > self._seen:
            oldest = max(self._seen + 1, newest - self._slots.slots + 1)
            self.missed += oldest - self._seen - 1
            self._seen = oldest
            try:
                return _to_frame(self._slots.read(oldest))
            except OverwrittenError:
                self.missed += 1
            except TornError:
                self.torn += 1
        return None

    def close(self) -> None:
        """Release the memory; a second call does nothing."""
        if self._on_close is not None:
            self._on_close()
            self._on_close = None
        else:
            self._waker.close()
        self._slots.close()


class FrameRing:
    """Holds the last few frames for readers in other processes. One thread publishes.

    Args:
        slots: number of frames that a reader may fall behind before it misses one.
        slot_bytes: size of the largest frame; only the used part takes memory.
    """

    def __init__(self, slots: int = 8, slot_bytes: int = MAX_FRAME_BYTES) -> None:
        self._slots = SharedSlots(slots, slot_bytes)
        self._wakers: tuple[Waker, ...] = ()
        self._retired: list[Waker] = []
        self._changing = threading.Lock()  # within this process, and never taken by publish
        self._touched_bytes = 0
        self._first_hw: tuple[int, ...] | None = None
        self.newest: tuple[int, float] | None = None
        """Sequence and capture time of the newest frame, for the process that publishes."""

    def publish(self, frame: LiveFrame) -> None:
        """Publish a frame to all readers, without waiting for any of them.

        Raises:
            VmklaError: the frame is larger than a slot, or not (H, W, 3) uint8.
        """
        rgb = frame.rgb
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise VmklaError(f"a frame has shape {rgb.shape} and type {rgb.dtype}, expected (H, W, 3) uint8")
        size_hw = rgb.shape[:2]
        if self._first_hw is None:
            self._first_hw = size_hw
        facts = (frame.sequence, frame.captured_s, *size_hw, int(frame.damaged))
        note = _NOTE.pack(*facts, *self._first_hw)
        # First, since a reader may answer before this thread runs again.
        self.newest = (frame.sequence, frame.captured_s)
        self._slots.write((np.ascontiguousarray(rgb).reshape(-1),), note)
        for waker in self._wakers:
            waker.wake()
        if rgb.nbytes > self._touched_bytes:
            self._touched_bytes = rgb.nbytes
            threading.Thread(
                target=self._slots.touch, args=(rgb.nbytes,), name="vmkla-touch", daemon=True
            ).start()
        while self._retired:  # closed here, so that no descriptor is closed while it is in use
            self._retired.pop().close()

    def subscribe(self) -> RingReader:
        """Return a new reader, which begins with the newest frame."""
        waker = Waker()

        def leave() -> None:
            with self._changing:
                if waker in self._wakers:
                    self._wakers = tuple(other for other in self._wakers if other is not waker)
                    self._retired.append(waker)

        try:
            reader = RingReader(self._slots.reader(), waker, leave)
        except BaseException:
            waker.close()
            raise
        with self._changing:
            self._wakers += (waker,)
        return reader

    def close(self) -> None:
        """Release the memory; readers keep their own mappings. A second call does nothing."""
        with self._changing:
            wakers, self._wakers = self._wakers, ()
        for waker in (*wakers, *self._retired):
            waker.close()
        self._retired.clear()
        self._slots.close()


def _to_frame(slot: Slot) -> LiveFrame:
    sequence, captured_s, height, width, damaged, *first_hw = _NOTE.unpack(slot.note[: _NOTE.size])
    rgb = slot.content.reshape(height, width, 3)
    return LiveFrame(sequence, captured_s, rgb, bool(damaged), (first_hw[0], first_hw[1]))
