"""Run slow calls on daemon threads, so that the main thread handles signals while a large image decodes.

Python runs a signal's handler in the main thread between two steps of its own. A call into a library that
takes a minute delays it by a minute. A thread pool does not help, since it waits for its workers before it
ends.
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
    """Call a function and return its result; in the main thread, signal handlers run meanwhile.

    A handler that raises abandons the call, which continues in the background until it or the process ends.

    Raises:
        BaseException: whatever the call raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    future: Future[R] = Future()
    threading.Thread(target=_run_call, args=(future, call), name=THREAD_NAME, daemon=True).start()
    return _result(future)


def mapped(function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Iterator[R]:
    """Yield a function's results in the order of its items; threads compute a few of them ahead.

    Closing the iterator, as an exception in the reader does, does not wait for any call.

    Args:
        function: what to call; an error that it raises is raised at its item's place.
        items: arguments of the function; iterated in the reader's thread.
        threads: number of calls at a time.
        ahead: number of calls that are running, waiting or done before the reader takes the first result;
            at least ``threads``.
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
            _run_call(call[0], lambda item=call[1]: function(item))  # type: ignore[misc]

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
    """Wait for a call's result, in short waits: a signal that came just before one is handled after it."""
    while not wait([future], timeout=_POLL_S).done:
        pass
    return future.result()


def _run_call(future: Future[R], call: Callable[[], R]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
