"""Stop a run in good order, from another thread or by a signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Cancellation(threading.Event):
    """Set it to stop a run: what is in flight is finished, outputs are closed, the report says so.

    Attributes:
        signum: the signal that asked for it, None when none did.
    """

    signum: int | None = None

    def stop(self, signum: int | None = None) -> None:
        """Ask the run to stop; the first signal is remembered."""
        if self.signum is None:
            self.signum = signum
        self.set()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Cancellation]:
    """Within it, SIGINT and SIGTERM stop the run in good order; a second one acts as it did before.

    Only the main thread can do this (Python's rule).

    Yields:
        What to hand to ``segment``.
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
