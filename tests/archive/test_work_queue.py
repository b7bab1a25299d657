"""The queue of a driver: order, and sources that wait for another process or for their parts."""

from __future__ import annotations

from pathlib import Path

from vmkla.archive.work import Entry
from vmkla.archive.work_queue import WorkQueue

A, B, C = (Entry(name, Path(name), "video") for name in "abc")


def test_items_come_in_order() -> None:
    queue = WorkQueue([A], 1000)
    queue.last(B)
    queue.first(C, C)
    assert [queue.take() for _ in range(5)] == [C, C, A, B, None] and not queue


def test_one_that_waits_comes_when_its_time_has_come_or_it_is_recalled() -> None:
    queue = WorkQueue([A, B], 1000)
    queue.later(C)
    queue.recall(A)  # it does not wait
    assert (queue.sources(), list(queue)) == (2, [A, B, C])
    assert [queue.take() for _ in range(3)] == [A, B, None] and queue
    queue.recall(C)
    assert queue.take() == C and not queue
    soon = WorkQueue([A], 0)
    soon.later(B)
    assert [soon.take() for _ in range(3)] == [A, B, None]
