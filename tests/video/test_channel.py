"""vmkla.video.channel: hand-over between threads neither hangs nor loses an error."""

from __future__ import annotations

import threading
import time

import pytest

from vmkla.video.channel import Channel, ChannelClosedError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def run(target: object) -> threading.Thread:
    assert callable(target)
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_everything_arrives_in_order_and_the_queue_is_bounded() -> None:
    channel: Channel[int] = Channel(3)
    waiting: list[int] = []

    def produce() -> None:
        for number in range(200):
            channel.put(number)
            waiting.append(number)
        channel.finish()

    producer = run(produce)
    taken = []
    for number in channel.items():
        taken.append(number)
        assert len(waiting) <= len(taken) + 3
        time.sleep(0 if number > 5 else 0.005)
    producer.join(5)
    assert taken == list(range(200)) and not producer.is_alive()


def test_an_error_comes_after_the_last_item() -> None:
    channel: Channel[int] = Channel(9)
    channel.put(1)
    channel.finish(ValueError("torn"))
    items = channel.items()
    assert next(items) == 1
    with pytest.raises(ValueError, match="torn"):
        next(items)


def test_close_frees_a_waiting_producer_and_a_waiting_consumer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    ended: list[str] = []

    def produce() -> None:
        with pytest.raises(ChannelClosedError):
            channel.put(1)
        ended.append("producer")

    empty: Channel[int] = Channel(1)

    def consume() -> None:
        with pytest.raises(ChannelClosedError):
            next(empty.items())
        ended.append("consumer")

    threads = [run(produce), run(consume)]
    time.sleep(0.05)
    channel.close()
    empty.close()
    for thread in threads:
        thread.join(5)
    assert sorted(ended) == ["consumer", "producer"]


def test_stopped_ends_the_wait() -> None:
    channel: Channel[int] = Channel(1)
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    assert list(channel.items(stop.is_set)) == []
    timer.join()
