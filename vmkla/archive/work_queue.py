"""What a driver has still to do: sources, and parts of long videos."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator

from vmkla.archive.tasks import VideoPart
from vmkla.archive.work import Entry

Item = Entry | VideoPart


class WorkQueue:
    """Items in the order in which they are begun; some are looked at again later.

    Args:
        entries: sources.
        pause_s: time after which an item is looked at again that another process has, or that waits for
            its parts, seconds.
    """

    def __init__(self, entries: Iterable[Entry], pause_s: float) -> None:
        self._pause_s = pause_s
        self._pending: deque[Item] = deque(entries)
        self._later: deque[tuple[float, Item]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending or self._later)

    def __iter__(self) -> Iterator[Item]:
        yield from self._pending
        yield from (item for _, item in self._later)

    def take(self) -> Item | None:
        """Return the next item, or None while all that are left wait."""
        now_s = time.monotonic()
        while self._later and self._later[0][0] <= now_s:
            self._pending.append(self._later.popleft()[1])
        return self._pending.popleft() if self._pending else None

    def sources(self) -> int:
        """Return the number of sources that do not wait."""
        return sum(isinstance(item, Entry) for item in self._pending)

    def first(self, *items: Item) -> None:
        """Put items before all others."""
        self._pending.extendleft(reversed(items))

    def last(self, item: Item) -> None:
        """Put an item behind all others."""
        self._pending.append(item)

    def later(self, item: Item) -> None:
        """Look at an item again after the pause."""
        self._later.append((time.monotonic() + self._pause_s, item))

    def recall(self, entry: Entry) -> None:
        """Look at a source at once if it waits."""
        waiting = [item for _, item in self._later if item is entry]
        self._later = deque(each for each in self._later if each[1] is not entry)
        self.first(*waiting)
