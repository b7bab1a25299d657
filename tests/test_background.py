"""vmkla.background: signals are heard, order is kept, and nobody waits for what is abandoned."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.background import THREAD_NAME, interruptible, mapped


class HeardError(Exception):
    """Raised by the handler of a signal."""


@pytest.fixture
def handler() -> object:
    def hear(_number: int, _frame: FrameType | None) -> None:
        raise HeardError

    before = signal.signal(signal.SIGUSR1, hear)
    yield hear
    signal.signal(signal.SIGUSR1, before)


def wait_signalled(begun: threading.Event) -> None:
    begun.wait(10)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def test_results_and_errors_pass_through() -> None:
    assert interruptible(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)
    other: list[bool] = []
    thread = threading.Thread(
        target=lambda: other.append(interruptible(threading.current_thread) is threading.current_thread())
    )
    thread.start()
    thread.join()
    assert other == [True]


def test_a_signal_is_heard_while_a_call_does_not_return(handler: object) -> None:
    begun, ended = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        ended.wait(30)

    threading.Thread(target=wait_signalled, args=(begun,)).start()
    try:
        with pytest.raises(HeardError):
            interruptible(call)
        assert not ended.is_set()
    finally:
        ended.set()


def test_a_signal_is_heard_while_no_call_of_a_map_returns(handler: object) -> None:
    begun, ended = threading.Event(), threading.Event()
    seen: list[int] = []

    def call(item: int) -> int:
        if item == 2:
            begun.set()
            ended.wait(30)
        return item

    threading.Thread(target=wait_signalled, args=(begun,)).start()
    try:
        with pytest.raises(HeardError):
            seen.extend(mapped(call, range(50), threads=2, ahead=4))
        assert not ended.is_set()
    finally:
        ended.set()


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 40), threads=st.integers(1, 4), ahead=st.integers(0, 12))
def test_a_map_keeps_the_order_and_holds_a_few(count: int, threads: int, ahead: int) -> None:
    taken = 0
    lead: list[int] = []

    def items() -> object:
        nonlocal taken
        for number in range(count):
            taken += 1
            yield number

    for position, result in enumerate(
        mapped(lambda item: item * item, items(), threads=threads, ahead=ahead)
    ):
        assert result == position * position
        lead.append(taken - position)
    assert len(lead) == count and max(lead, default=0) <= max(ahead, threads)


def test_an_error_comes_in_its_items_place_and_the_threads_end() -> None:
    before = threading.active_count()
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        for result in mapped(lambda item: 6 // (3 - item), range(9), threads=2, ahead=4):
            seen.append(result)
    assert seen == [2, 3, 6]
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
