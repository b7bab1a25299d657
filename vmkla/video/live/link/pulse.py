"""The worker's sign of life, written many times a second by a thread that does nothing else."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vmkla.video.live.link.board import Board

PULSE_BYTES = 1 << 16
PULSE_INTERVAL_S = 0.015
_WORDS_MAX = 2000

Stage = Literal["starting", "self-testing", "ready", "failed"]


@dataclass(frozen=True)
class Pulse:
    """What the worker says of itself.

    Attributes:
        at_s: when, seconds of ``time.monotonic()``.
        stage: what it does; ``failed`` is its last word.
        inferring_since_s: the network has been at work since then; None when it is not.
        self_tests: the last self-test that was asked for and passed; 0 is the one at the start.
        cause: of a failure, in a few words.
        message, hint: of the error.
        error: its class.
        exit_status: of the error, what the command line would end with.
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
        """JSON, for the board."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Pulse:
        """Inverse of ``to_bytes``.

        Raises:
            ValueError, TypeError: it is none.
        """
        return cls(**json.loads(message))


class Heart:
    """Writes the pulse: at every interval, and at once when something changes.

    Args:
        board: where.
        parent: process id of the display process; this process ends when that one is no longer its parent.
    """

    def __init__(self, board: Board, parent: int) -> None:
        self._board = board
        self._parent = parent
        self._pulse = Pulse()
        self._lock = threading.Lock()  # between the threads of this process: a board has one writer
        threading.Thread(target=self._beat, name="vmkla-heart", daemon=True).start()

    def say(self, **changes: Any) -> None:
        """Change the pulse, and write it now."""
        with self._lock:
            self._pulse = replace(self._pulse, **changes)
            self._write()

    def fail(self, cause: str, error: BaseException) -> None:
        """The last word: why the worker ends."""
        self.say(
            stage="failed",
            cause=cause,
            message=(getattr(error, "message", None) or str(error) or repr(error))[:_WORDS_MAX],
            hint=getattr(error, "hint", None),
            error=type(error).__name__,
            exit_status=int(getattr(error, "exit_status", 1)),
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
        os._exit(1)  # nobody looks any more
