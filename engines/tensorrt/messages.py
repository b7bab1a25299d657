"""Collect TensorRT's messages: one logger and one error recorder for each library and process."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

KEPT_MESSAGES = 10_000
"""Largest number of errors and of warnings in ``Messages``; the newest are kept."""
SHOWN_ERRORS = 3
KEPT_ERRORS = 64
"""Largest number of errors in the recorder, for the library's own use; the newest are kept."""


@dataclass
class Messages:
    """Messages of a library, collected during one load, build or run.

    Attributes:
        errors, warnings: texts in the order of their arrival, at most ``KEPT_MESSAGES`` of each.
        notes: texts below a warning; some facts are reported only there, such as a hit of the timing cache.
        complaints: total number of errors and warnings, including those no longer kept.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complaints: int = 0

    def add(self, level: int, text: str) -> None:
        """Keep a message and pass it to Python's logging, one level lower.

        The level is lower because vmkla itself raises or reports what matters to a user.
        """
        if level >= logging.WARNING:
            self.complaints += 1
            _keep(self.errors if level >= logging.ERROR else self.warnings, text)
            logger.info("%s", text)
        else:
            if level >= logging.INFO:
                _keep(self.notes, text)
            logger.debug("%s", text)


def _keep(texts: list[str], text: str) -> None:
    # No lock: the library calls from any thread, also from a destructor that interrupts this function.
    texts.append(text)
    del texts[:-KEPT_MESSAGES]


def take_errors(messages: Messages) -> str:
    """Remove all errors, and return the latest in one line."""
    errors, messages.errors[:] = messages.errors[-SHOWN_ERRORS:], []
    return "; ".join(errors) or "it reported no reason"


class LibraryLog:
    """Forward the messages of one library's logger and error recorder to the blocks that collect them.

    There is one for each library, which is never freed. The library's plugin registry keeps a raw pointer to
    its first logger while any builder or runtime lives, and logs through it at every query: a logger that
    belonged to one load would crash the process once that load is closed. Likewise a builder passes its
    recorder on to objects that outlive it, such as a timing cache.

    Args:
        module: the library's Python module.
    Attributes:
        logger: the ``ILogger``.
        recorder: the ``IErrorRecorder``. An object that has one reports its errors there and not to a logger.
            So they arrive here even where another program's logger was set first, and so do those of the
            plugin registry, which has no logger while no builder or runtime lives.
    """

    def __init__(self, module: Any) -> None:
        self._name = str(module.__name__)
        self._changing = threading.RLock()
        # Replaced as a whole, so that `forward` reads it without a lock.
        self._collectors: tuple[tuple[int, Messages], ...] = ()
        self.logger = _make_logger(module, self.forward)
        self.recorder = _make_recorder(module, self.forward)
        for kept in (self.logger, self.recorder):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # also when this module is reloaded or cleared

    @contextlib.contextmanager
    def collecting(self, messages: Messages) -> Iterator[None]:
        """Collect the library's messages in ``messages``, for a block of the calling thread.

        Blocks nest: the innermost block of a thread gets that thread's messages. Messages of the library's
        own threads go to the innermost block of every thread.
        """
        entry = (threading.get_ident(), messages)
        with self._changing:
            self._collectors += (entry,)
        try:
            yield
        finally:
            with self._changing:
                self._collectors = tuple(other for other in self._collectors if other is not entry)

    def forward(self, level: int, text: str) -> None:
        """Pass a message to the blocks that collect it; log an error that no block collects as an error."""
        innermost = dict(self._collectors)  # thread -> the block that it opened last
        own = innermost.get(threading.get_ident())
        receivers = list(innermost.values()) if own is None else [own]
        for messages in {id(receiver): receiver for receiver in receivers}.values():
            messages.add(level, text)
        if not receivers:
            logger.log(level if level >= logging.ERROR else logging.DEBUG, "%s: %s", self._name, text)


_logs: dict[Any, LibraryLog] = {}
_making = threading.RLock()


def library_log(module: Any) -> LibraryLog:
    """Return a library's log, the same object at every call in a process.

    Args:
        module: the library's Python module.
    """
    with _making:
        if module.ILogger not in _logs:
            _logs[module.ILogger] = LibraryLog(module)
        return _logs[module.ILogger]


def _make_logger(module: Any, forward: Callable[[int, str], None]) -> Any:
    """Make an ``ILogger`` that calls ``forward`` with a level of Python's logging and the text."""
    severities = module.ILogger
    levels = {
        severities.INTERNAL_ERROR: logging.ERROR,
        severities.ERROR: logging.ERROR,
        severities.WARNING: logging.WARNING,
        severities.INFO: logging.INFO,
        severities.VERBOSE: logging.DEBUG,
    }

    class ForwardingLogger(severities):  # type: ignore[misc, valid-type]
        """Called by the library from any of its threads."""

        def __init__(self) -> None:
            severities.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            forward(levels[severity], msg)

    return ForwardingLogger()


def _make_recorder(module: Any, forward: Callable[[int, str], None]) -> Any:
    """Make an ``IErrorRecorder`` that calls ``forward`` with the text of each error."""
    base: Any = module.IErrorRecorder

    class ForwardingRecorder(base):  # type: ignore[misc]
        """Called by the library from any of its threads."""

        def __init__(self) -> None:
            base.__init__(self)
            # Reentrant: a destructor that runs inside the lock may report an error.
            self._changing = threading.RLock()
            self._errors: deque[tuple[Any, str]] = deque(maxlen=KEPT_ERRORS)
            self._dropped = False

        def report_error(self, val: Any, desc: str) -> bool:
            with self._changing:
                self._dropped = self._dropped or len(self._errors) == KEPT_ERRORS
                self._errors.append((val, desc))
            forward(logging.ERROR, desc)
            return True  # every error ends the call that raised it

        def num_errors(self) -> int:
            with self._changing:
                return len(self._errors)

        get_num_errors = num_errors  # the name that the bindings call it by

        def get_error_code(self, error_idx: int) -> Any:
            with self._changing:
                return self._errors[error_idx][0]

        def get_error_desc(self, error_idx: int) -> str:
            with self._changing:
                return self._errors[error_idx][1]

        def has_overflowed(self) -> bool:
            with self._changing:
                return self._dropped

        def clear(self) -> None:
            with self._changing:
                self._errors.clear()
                self._dropped = False

    return ForwardingRecorder()
