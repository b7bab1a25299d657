"""Estimate the frames of a batch while it runs, from the bytes of its sources."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from vmkla.archive.work import Entry


class FrameEstimate:
    """Frames that are done, and the frames of all entries that are not settled otherwise.

    A source whose number of frames is not known yet counts by its bytes, at the ratio of the known ones.

    Args:
        entries: all sources of the batch.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._bytes = {entry.id: size_bytes(entry) for entry in entries}
        self._open_bytes = sum(self._bytes.values())
        self._known_bytes = 0
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._finished = 0
        self._known_frames = 0

    @property
    def done(self) -> int:
        """Frames of pieces that this run finished or has in work."""
        return self._finished + sum(self._done.values())

    @property
    def total(self) -> int | None:
        """Estimated frames of this run; None before the first source is open."""
        if not self._known_bytes:
            return None
        rest = max(0, self._open_bytes - sum(self._bytes.get(name, 0) for name in self._total))
        frames = self._finished + sum(self._total.values())
        return max(self.done, frames + round(rest * self._known_frames / self._known_bytes))

    def advance(self, entry: Entry, done: int, total: int | None) -> None:
        """Note the progress of a piece in work."""
        self._done[entry.id] = done
        if total is not None and entry.id not in self._total:
            self._total[entry.id] = total
            self._known_frames += total
            self._known_bytes += self._bytes.get(entry.id, 0)

    def finish(self, frames: int) -> None:
        """Count a piece that this run finished."""
        self._finished += frames

    def settle(self, entry: Entry) -> None:
        """Take an entry that needs no further work out of the estimate."""
        self._open_bytes -= self._bytes.pop(entry.id, 0)
        self._done.pop(entry.id, None)
        self._total.pop(entry.id, None)


def size_bytes(entry: Entry) -> int:
    """Return the size of a source, bytes; 0 where it cannot be read."""
    with suppress(OSError):
        if not entry.path.is_dir():
            return entry.path.stat().st_size
        with os.scandir(entry.path) as found:
            return sum(file.stat().st_size for file in found if file.is_file())
    return 0
