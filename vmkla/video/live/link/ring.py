"""Frames from the display process to others, through shared memory: the newest wins, nobody waits."""

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
from vmkla.video.live.link.shared_slots import OverwrittenError, SharedSlots, Slot, TornError

_NOTE = struct.Struct("<QdIIB")  # sequence, captured_s, height, width, damaged


class Waker:
    """Wakes one waiting reader, in this process or another; the one who wakes never waits."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __getstate__(self) -> dict[str, Any]:
        return {"fd": DupFd(self._fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._fd = state["fd"].detach()

    def fileno(self) -> int:
        """For ``select.poll``: readable when somebody was woken and has not said so with ``clear``."""
        return self._fd

    def wake(self) -> None:
        """Let ``wait`` return."""
        try:
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:
            return  # nobody has looked for 2^64 calls; the reader is awake as it is

    def clear(self) -> None:
        """Forget what was signalled so far."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return  # nothing was

    def wait(self, timeout_s: float) -> None:
        """Return when woken, or when the time is over."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll(max(0.0, timeout_s) * 1e3)
        self.clear()

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RingReader:
    """One reader's place in a ring. Pickled into a process that is being started, it goes on there.

    Attributes:
        missed: frames that ``next`` could not give, since they were overwritten before.
        skipped: frames that ``latest`` passed over for a newer one.
        torn: frames whose checksum or numbers did not fit; none of them was given.
    """

    def __init__(self, slots: SharedSlots, waker: Waker, on_close: Callable[[], None]) -> None:
        self._slots = slots
        self._waker = waker
        self._on_close: Callable[[], None] | None = on_close
        self._seen = max(0, slots.newest - 1)  # the newest there is at the beginning is still given
        self.missed = self.skipped = self.torn = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_close": None}

    def fileno(self) -> int:
        """For ``select.poll``: readable when frames came since the last ``wait``."""
        return self._waker.fileno()

    def wait(self, timeout_s: float) -> bool:
        """Whether there is a frame not seen yet, now or within the time."""
        if self._slots.newest > self._seen:
            self._waker.clear()
            return True
        self._waker.wait(timeout_s)
        return self._slots.newest > self._seen

    def latest(self) -> LiveFrame | None:
        """The newest frame that this reader has not seen, a copy; older ones are passed over."""
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
        """The oldest frame that this reader has not seen and that is still there, a copy."""
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
        """Let go of the memory; a second call does nothing."""
        if self._on_close is not None:
            self._on_close()
            self._on_close = None
        else:
            self._waker.close()
        self._slots.close()


class FrameRing:
    """The last few frames, for readers in other processes. One thread publishes.

    Args:
        slots: how many frames a reader may fall behind before it misses one.
        slot_bytes: the largest frame; only what is used takes memory.
    """

    def __init__(self, slots: int = 8, slot_bytes: int = MAX_FRAME_BYTES) -> None:
        self._slots = SharedSlots(slots, slot_bytes)
        self._wakers: tuple[Waker, ...] = ()
        self._retired: list[Waker] = []
        self._changing = threading.Lock()  # of this process alone, and never taken by publish
        self._touched_bytes = 0
        self.newest: tuple[int, float] | None = None
        """Sequence and capture time of the newest frame, for the process that publishes."""

    def publish(self, frame: LiveFrame) -> None:
        """Hand a frame to all readers. Never waits for any of them.

        Raises:
            VmklaError: it is larger than a slot, or no (H, W, 3) uint8.
        """
        rgb = frame.rgb
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise VmklaError(f"a frame has shape {rgb.shape} and type {rgb.dtype}, expected (H, W, 3) uint8")
        note = _NOTE.pack(frame.sequence, frame.captured_s, rgb.shape[0], rgb.shape[1], int(frame.damaged))
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
        """A new reader; it begins with the newest frame there is."""
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
        """Let go of the memory; readers keep what they map. A second call does nothing."""
        with self._changing:
            wakers, self._wakers = self._wakers, ()
        for waker in (*wakers, *self._retired):
            waker.close()
        self._retired.clear()
        self._slots.close()


def _to_frame(slot: Slot) -> LiveFrame:
    sequence, captured_s, height, width, damaged = _NOTE.unpack(slot.note[: _NOTE.size])
    return LiveFrame(sequence, captured_s, slot.content.reshape(height, width, 3), bool(damaged))
