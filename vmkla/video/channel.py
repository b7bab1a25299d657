"""A bounded queue between two threads that neither hangs nor loses an error."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.1


class ChannelClosedError(Exception):
    """The other side has closed the channel."""


class Channel(Generic[T]):
    """A bounded queue for one producer and one consumer.

    The producer ends with ``finish`` and passes its error, if any, which the consumer gets after the last
    item. Any thread ends both sides at once with ``close``.

    Args:
        depth: number of items that may wait; ``put`` blocks beyond.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add an item, waiting for space.

        Raises:
            ChannelClosedError: the channel was closed.
        """
        with self._changed:
            while len(self._items) >= self._depth and not self._closed:
                self._changed.wait()
            if self._closed:
                raise ChannelClosedError
            self._items.append(item)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """End the items; the consumer gets ``error`` after the last one."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """End both sides now, and drop waiting items."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def items(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[T]:
        """Yield items until the producer finishes or ``stopped`` returns True.

        Raises:
            ChannelClosedError: the channel was closed.
            BaseException: the producer's error, after its last item.
        """
        while not stopped():
            with self._changed:
                if not self._items and not self._finished and not self._closed:
                    self._changed.wait(_POLL_S)  # with a timeout, so that ``stopped`` is called again
                if self._closed:
                    raise ChannelClosedError
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._finished:
                    break
                else:
                    continue
            yield item
        if self._error is not None and not stopped():
            raise self._error
