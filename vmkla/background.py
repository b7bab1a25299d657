"""Slow calls on daemon threads, so that the main thread hears signals while a large image decodes.

Python runs a signal's handler in the main thread between two steps of its own. A call into a library that
takes a minute delays it by a minute; a thread pool is no help, since it waits for its workers before it ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREAD_NAME = "vmkla-background"
_POLL_S = 0.2


def interruptible(call: Callable[[], R]) -> R:
    """The result of a call; in the main thread a signal's handler runs while it works.

    A handler that raises abandons the call: it goes on in the background until it or the process ends.

    Raises:
        BaseException: whatever the call raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    future: Future[R] = Future()
    threading.Thread(target=_fulfil, args=(future, call), name=THREAD_NAME, daemon=True).start()
    return _result(future)


def mapped(function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Iterator[R]:
    """Results of a function in the order of its items, a few calls ahead of the reader.

    Closing the iterator, as an exception in the reader does, waits for none of the calls.

    Args:
        function: what to call; an error that it raises is raised at its item's place.
        items: its arguments; taken in the reader's thread.
        threads: calls at a time.
        ahead: calls that are begun or wait before the reader takes the first result, at least ``threads``.
    """
    calls: deque[tuple[Future[R], T] | None] = deque()
    changed = threading.Condition()

    def work() -> None:
        while True:
            with changed:
                changed.wait_for(lambda: bool(calls))
                call = calls.popleft()
            if call is None:
                return
            _fulfil(call[0], lambda item=call[1]: function(item))  # type: ignore[misc]

    workers = [threading.Thread(target=work, name=THREAD_NAME, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    results: deque[Future[R]] = deque()
    try:
        for item in items:
            future: Future[R] = Future()
            results.append(future)
            with changed:
                calls.append((future, item))
                changed.notify()
            if len(results) >= max(ahead, threads):
                yield _result(results.popleft())
        while results:
            yield _result(results.popleft())
    finally:
        with changed:
            calls.clear()
            calls.extend([None] * threads)
            changed.notify_all()


def _result(future: Future[R]) -> R:
    """A call's result. The wait has a limit: a signal that comes just before it is heard after it."""
    while not wait([future], timeout=_POLL_S).done:
        pass
    return future.result()


def _fulfil(future: Future[R], call: Callable[[], R]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
