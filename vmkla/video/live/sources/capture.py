"""The capture thread: read a source and keep its newest frame, whatever happens to the source."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vmkla.errors import VmklaError
from vmkla.video.live.events import EventSink
from vmkla.video.live.frame import MAX_FRAME_BYTES, LiveFrame, SignalState
from vmkla.video.live.sources.cameras import CameraContext, CameraError, CaptureLimits, Shot, make_camera
from vmkla.video.live.sources.health import SignalHealth
from vmkla.video.media.address import LiveAddress

__all__ = ["Capture", "CaptureCounts", "CaptureLimits"]

_SHOW_S = 0.02  # longest wait for the display
_DAMAGE_EVENT_S = 1.0  # interval of log entries for one cause; each loss is counted


@dataclass(frozen=True)
class CaptureCounts:
    """Counts of a source's frames.

    Attributes:
        received: number of frames that the source gave.
        damaged: number of received frames in which the decoder concealed missing data.
        opened: how often the source was opened and gave a frame.
        dropped: number of lost frames by cause. ``not taken``: a newer one came before it was taken; it
            counts as received. The others do not: ``undecodable`` packets, frames that came too late
            (``behind``), and frames that are ``too large``.
    """

    received: int = 0
    damaged: int = 0
    opened: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Capture:
    """Reads a source in a thread of its own and keeps its newest frame.

    A camera that fails is opened again while the run lasts; a file ends it. ``take`` never waits longer than
    its timeout, and ``close`` abandons a source that hangs.

    Args:
        address: address of the source, see ``parse_address``.
        events: log of the source and its signal, without names or addresses.
        loop: start a file again when it ends.
        limits: limits of the source.

    Attributes:
        held: while true, frames of the source are discarded as if it gave none.
    """

    def __init__(
        self,
        address: LiveAddress,
        events: EventSink,
        *,
        loop: bool = False,
        limits: CaptureLimits | None = None,
    ) -> None:
        self.address = address
        self.limits = limits or CaptureLimits()
        self.held = False
        self._events = events
        self._stop = threading.Event()
        context = CameraContext(self.limits, self._stop, self._drop, self._let_show)
        self._ends = not address.live
        self._loop = loop
        self._camera = make_camera(address, context, loop=loop)
        self._health = SignalHealth(self.limits.health)
        self._fresh = threading.Condition()
        self._asked = threading.Event()  # set when the display waits for the next frame
        self._newest: LiveFrame | None = None
        self._received = self._damaged = self._opened = 0
        self._dropped: Counter[str] = Counter()
        self._logged_s: dict[str, float] = {}
        self._logged_signal = SignalState.LOST
        self._size_hw: tuple[int, int] | None = None
        self._trouble = ""
        self._open = False
        self._ended = False
        self._error: VmklaError | None = None
        self._thread = threading.Thread(target=self._run, name="vmkla-capture", daemon=True)

    def start(self) -> None:
        """Start reading.

        Raises:
            VmklaError: the source can never be read: a file that is not a video, OpenCV without GStreamer.
        """
        self._camera.prepare()
        self._thread.start()

    def take(self, timeout_s: float) -> LiveFrame | None:
        """Return the newest frame not yet taken; None when none comes in time or the source has ended."""
        with self._fresh:
            if self._newest is None and not self._ended and timeout_s > 0:
                self._asked.set()
                self._fresh.wait_for(lambda: self._newest is not None or self._ended, timeout_s)
            frame, self._newest = self._newest, None
        self._note_signal()
        return frame

    @property
    def signal(self) -> SignalState:
        """State of the signal now."""
        return self._health.state(time.monotonic())

    @property
    def ended(self) -> bool:
        """Whether a file has ended and its last frame was taken."""
        return self._ended and self._newest is None

    @property
    def error(self) -> VmklaError | None:
        """Why a file ended before its first frame; None otherwise."""
        return self._error

    @property
    def trouble(self) -> str:
        """Why the source cannot be read now, without names; empty while it gives frames."""
        return self._trouble

    @property
    def counts(self) -> CaptureCounts:
        """Counts of the frames so far."""
        with self._fresh:
            return CaptureCounts(self._received, self._damaged, self._opened, dict(self._dropped))

    def describe(self) -> dict[str, Any]:
        """Describe the source for the report, without passwords and folders."""
        return {
            "kind": self.address.kind,
            "address": self.address.name,
            "loop": self._loop,
            **self._camera.describe(),
        }

    def close(self) -> None:
        """End the thread, or abandon it with a source that hangs; the process can end all the same."""
        self._stop.set()
        with self._fresh:
            self._fresh.notify_all()
        if not self._thread.is_alive():
            return
        self._thread.join(self.limits.close_s)
        if self._thread.is_alive():
            self._events.add("source left", "the source does not answer and was left behind")

    def _run(self) -> None:
        wait_s = self.limits.retry_s
        while not self._stop.is_set():
            cause, private = "the source ended", ""
            before = self._received
            try:
                for shot in self._camera.shots():
                    self._give(shot)
                    if self._stop.is_set():
                        break
            except VmklaError as error:
                cause, private = _public(error), self._redact(error.message)
                self._error = error if self._ends and not self._received else None
            except Exception as error:  # whatever a decoder or driver does, the display continues
                cause, private = f"unexpected {type(error).__name__}", self._redact(str(error))
            self._close_camera()
            if self._stop.is_set():
                break
            if self._ends and not (self._loop and self._received):
                self._end(cause, private)
                return
            self._lose(cause, private)
            wait_s = self.limits.retry_s if self._received > before else wait_s
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, self.limits.retry_max_s)

    def _give(self, shot: Shot) -> None:
        if self.held:
            return
        if shot.rgb.nbytes > MAX_FRAME_BYTES:
            self._drop("too large", "a frame is larger than 3840x2160")
            return
        size_hw = (shot.rgb.shape[0], shot.rgb.shape[1])
        if not self._open:
            self._open, self._trouble = True, ""
            self._opened += 1
            self._events.add("source open", f"{size_hw[1]}x{size_hw[0]}", **self._camera.describe())
        if self._size_hw not in (None, size_hw):
            self._log_format(size_hw)
        self._size_hw = size_hw
        shot.rgb.flags.writeable = False
        self._health.see(shot.rgb, shot.captured_s)
        with self._fresh:
            if self._newest is not None:
                self._dropped["not taken"] += 1
            self._asked.clear()
            self._received += 1
            self._damaged += shot.damaged
            self._newest = LiveFrame(self._received, shot.captured_s, shot.rgb, shot.damaged)
            self._fresh.notify_all()

    def _let_show(self) -> None:
        self._asked.wait(_SHOW_S)

    def _drop(self, cause: str, detail: str) -> None:
        with self._fresh:
            self._dropped[cause] += 1
            count = self._dropped[cause]
        now_s = time.monotonic()
        if now_s - self._logged_s.get(cause, -_DAMAGE_EVENT_S) >= _DAMAGE_EVENT_S:
            self._logged_s[cause] = now_s
            self._events.add("source drop", cause, cause=self._redact(detail), so_far=count)

    def _redact(self, text: str) -> str:
        """Remove passwords from a message that may quote an address."""
        return self.address.redact(text)

    def _log_format(self, size_hw: tuple[int, int]) -> None:
        before = self._size_hw
        assert before is not None
        detail = f"{before[1]}x{before[0]} became {size_hw[1]}x{size_hw[0]}"
        self._events.add("source format", detail, before_hw=list(before), after_hw=list(size_hw))

    def _close_camera(self) -> None:
        try:
            self._camera.close()
        except Exception as error:
            self._events.add("source lost", f"closing failed with {type(error).__name__}")

    def _lose(self, cause: str, private: str) -> None:
        if self._open or cause != self._trouble:
            self._events.add("source lost", cause, cause=private)
        self._open, self._trouble = False, cause
        self._health.lose()

    def _end(self, cause: str, private: str) -> None:
        self._events.add("source end", cause, cause=private)
        self._open, self._trouble = False, cause
        with self._fresh:
            self._ended = True
            self._fresh.notify_all()

    def _note_signal(self) -> None:
        """Log a change of the signal; the display thread does it, since a source may hang."""
        state = self.signal
        if state is not self._logged_signal and not self._ended:
            self._events.add("signal", f"{self._logged_signal.value} became {state.value}")
            self._logged_signal = state


def _public(error: VmklaError) -> str:
    """Return the cause of an error without the names in its message."""
    return error.cause if isinstance(error, CameraError) else "the source cannot be read"
