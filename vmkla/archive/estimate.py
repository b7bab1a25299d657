"""Estimate the frames of a batch while it runs, from the bytes of its sources."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress

from vmkla.archive.tasks import VideoPart
from vmkla.archive.work import Entry


class FrameEstimate:
    """Frames that are done, and the frames of all entries that are not settled otherwise.

    A source whose number of frames is not known yet counts by its bytes, at the ratio of the known ones. In a
    video that is done in parts a frame counts half with its part, and half with the run over the whole.

    Args:
        entries: all sources of the batch.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._bytes = {entry.id: size_bytes(entry) for entry in entries}
        self._open_bytes = sum(self._bytes.values())
        self._known_bytes = 0
        self._done: dict[str, int] = {}
        self._of_parts: dict[str, dict[int, int]] = {}  # entry -> first frame of a part -> its frames done
        self._total: dict[str, int] = {}
        self._finished = 0
        self._known_frames = 0

    @property
    def done(self) -> int:
        """Frames of pieces that this run finished or has in work."""
        return self._finished + sum(map(self._done_of, self._done))

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
        self._note(entry, total)

    def cut(self, entry: Entry, parts: Iterable[VideoPart], missing: Collection[VideoPart]) -> None:
        """Note that a video is done in parts, of which some are missing."""
        sizes = {each.part.first: each.part.end - each.part.first for each in parts}
        undone = {each.part.first for each in missing}
        self._of_parts[entry.id] = {first: 0 if first in undone else size for first, size in sizes.items()}
        self._done[entry.id] = 0
        self._note(entry, sum(sizes.values()))

    def advance_part(self, part: VideoPart, done: int) -> None:
        """Note the progress of a part in work."""
        self._of_parts.get(part.entry.id, {})[part.part.first] = done

    def _done_of(self, name: str) -> int:
        of_parts = self._of_parts.get(name)
        done = self._done[name]
        return done if of_parts is None else (sum(of_parts.values()) + done) // 2

    def _note(self, entry: Entry, total: int | None) -> None:
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
        self._of_parts.pop(entry.id, None)
        self._total.pop(entry.id, None)


def size_bytes(entry: Entry) -> int:
    """Return the size of a source, bytes; 0 where it cannot be read."""
    with suppress(OSError):
        if not entry.path.is_dir():
            return entry.path.stat().st_size
        with os.scandir(entry.path) as found:
            return sum(file.stat().st_size for file in found if file.is_file())
    return 0
