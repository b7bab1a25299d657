"""The worker's pulse: its state, published many times a second by a thread of its own."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vmkla.errors import ErrorReport
from vmkla.video.live.shared_memory.board import Board

PULSE_BYTES = 1 << 16
PULSE_INTERVAL_S = 0.015
_WORDS_MAX = 2000

Stage = Literal["starting", "self-testing", "ready", "failed"]


@dataclass(frozen=True)
class Pulse:
    """State of the worker.

    Attributes:
        at_s: time of publishing, seconds of ``time.monotonic()``.
        stage: what the worker does; ``failed`` is its last stage.
        inferring_since_s: start of the current inference, seconds of ``time.monotonic()``; None without one.
        self_tests: number of the last passed self-test, 0 for the one at the start; -1 before it.
        cause: cause of a failure, in a few words.
        message, hint: message and hint of the error.
        error: class of the error.
        exit_status: exit status of a command that ends with the error.
    """

    at_s: float = 0.0
    stage: Stage = "starting"
    inferring_since_s: float | None = None
    self_tests: int = -1
    cause: str = ""
    message: str = ""
    hint: str | None = None
    error: str = ""
    exit_status: int = 1

    def to_bytes(self) -> bytes:
        """Return JSON, for the board."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Pulse:
        """Read what ``to_bytes`` returned.

        Raises:
            ValueError, TypeError: the message is not a pulse.
        """
        return cls(**json.loads(message))


class PulseWriter:
    """Publishes the pulse at every interval, and at once when it changes.

    Args:
        board: board of the pulse.
        parent: process id of the display process; this process ends when that is no longer its parent.
    """

    def __init__(self, board: Board, parent: int) -> None:
        self._board = board
        self._parent = parent
        self._pulse = Pulse()
        self._lock = threading.Lock()  # a board has one writer, and this process two threads
        threading.Thread(target=self._beat, name="vmkla-pulse", daemon=True).start()

    def update(self, **changes: Any) -> None:
        """Change the pulse and publish it now."""
        with self._lock:
            self._pulse = replace(self._pulse, **changes)
            self._write()

    def fail(self, cause: str, error: BaseException) -> None:
        """Publish why the worker ends; the pulse does not change afterwards."""
        report = ErrorReport.of(error)
        self.update(
            stage="failed",
            cause=cause,
            message=(getattr(error, "message", None) or str(error) or repr(error))[:_WORDS_MAX],
            hint=report.hint,
            error=type(error).__name__,
            exit_status=report.exit_status,
        )

    def _write(self) -> None:
        self._pulse = replace(self._pulse, at_s=time.monotonic())
        self._board.publish(self._pulse.to_bytes())

    def _beat(self) -> None:
        while os.getppid() == self._parent:
            with self._lock:
                if self._pulse.stage != "failed":
                    self._write()
            time.sleep(PULSE_INTERVAL_S)
        os._exit(1)  # no supervisor is left
