"""Stop a run in good order, from another thread or by a signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Cancellation(threading.Event):
    """Stops a run when set: frames in work are finished, outputs are closed, and the report states it.

    Attributes:
        signum: number of the signal that asked for it; None when none did.
    """

    signum: int | None = None

    def stop(self, signum: int | None = None) -> None:
        """Ask the run to stop, and remember the first signal."""
        if self.signum is None:
            self.signum = signum
        self.set()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Cancellation]:
    """Let SIGINT and SIGTERM stop a run in good order within the context; a second one acts as before.

    Python allows this in the main thread only.

    Yields:
        The cancellation for ``segment`` or ``run_live``.
    """
    cancel = Cancellation()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def ask(signum: int, _frame: FrameType | None) -> None:
        restore()
        cancel.stop(signum)

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield cancel
    finally:
        restore()
