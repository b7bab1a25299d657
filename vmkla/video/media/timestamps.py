"""Repair time stamps, so that a file can hold them: complete, rising, from zero or later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")

_JUMP_MAX_S = 6 * 3600
_JUMP_MAX_TICKS = (1 << 31) - 1  # longest pause between two frames in an MP4
_FINEST = Fraction(1, 10_000_000)
_DOUBTED_FRAMES = 10


@dataclass
class Timeline:
    """Keeps good time stamps unchanged, repairs the others, and counts both repairs and jumps.

    - A missing one follows the last by the clip's frame duration; the first one precedes the next by it.
    - A single one out of order (repeated, lower, or higher than the one after it) is placed between its
      neighbours.
    - A step back that the next frame confirms is a new start (a joined recording, a clock that was set):
      later time stamps are shifted to continue. After a step of a second or more, an old clock that returns
      within ten frames counts again.
    - A step forward is a pause and stays; only one of six hours or more, or longer than an MP4 can hold, is a
      new start too.
    - A clip that starts below zero is shifted to zero, since an MP4 player would skip what lies before.

    Attributes:
        time_base: seconds per tick.
        frame_ticks: ticks between frames, for gaps; at least 1.
        repaired: number of time stamps that were missing or did not rise.
        jumps: number of new starts.
        shift: number of ticks now added to each time stamp.
    """

    time_base: Fraction
    frame_ticks: int
    repaired: int = 0
    jumps: int = 0
    shift: int = 0
    _last: int | None = field(default=None, repr=False)
    _last_pts: int = field(default=0, repr=False)
    _old_shift: int | None = field(default=None, repr=False)  # of the clock before an unconfirmed step back
    _doubted: int = field(default=0, repr=False)

    def place(self, pts: int | None, following: int | None = None) -> int:
        """Return the time stamp for a frame, in ticks, greater than all before.

        Args:
            pts: own time stamp of the frame; None when missing.
            following: time stamp of the next frame; None when missing or unknown.
        """
        last = self._last
        if last is None:
            placed = self._first(pts, following)
        elif pts is None:
            self.repaired += 1
            placed = last + self.frame_ticks
        else:
            self._return_to_old_clock(pts, last)
            placed = self._in_line(pts, last, following)
        self._last = placed
        if pts is not None:
            self._last_pts = pts
        return placed

    def placed(
        self, items: Iterable[T], pts_of: Callable[[T], int | None], source_base: Fraction
    ) -> Iterator[tuple[T, int]]:
        """Yield each item with its time stamp, reading one item ahead.

        Args:
            items: frames, in order.
            pts_of: returns a frame's own time stamp, ticks of ``source_base``.
            source_base: seconds per tick of the frames' own time stamps.
        """
        scale = source_base / self.time_base
        waiting: list[tuple[T, int | None]] = []
        for item in items:
            own = pts_of(item)
            pts = None if own is None else round(own * scale)
            if waiting:
                before, before_pts = waiting.pop()
                yield before, self.place(before_pts, pts)
            waiting.append((item, pts))
        for item, pts in waiting:
            yield item, self.place(pts)

    def _first(self, pts: int | None, following: int | None) -> int:
        begins = following if pts is None else pts
        if begins is not None and begins < 0:
            self.shift = -begins
        if pts is not None:
            return pts + self.shift
        self.repaired += 1
        return 0 if following is None else max(0, following + self.shift - self.frame_ticks)

    def _return_to_old_clock(self, pts: int, last: int) -> None:
        if self._old_shift is None:
            return
        self._doubted += 1
        if last < pts + self._old_shift < last + self._jump_ticks:
            self.shift, self._old_shift = self._old_shift, None
            self.jumps -= 1
        elif self._doubted > _DOUBTED_FRAMES:
            self._old_shift = None

    def _in_line(self, pts: int, last: int, following: int | None) -> int:
        placed = pts + self.shift
        after = None if following is None else following + self.shift
        if placed > last:
            if after is not None and last < after < placed:
                return self._between(last, after)  # higher than the next one, which is in order
            if placed - last >= self._jump_ticks:
                return self._begin_anew(pts, last)
            return placed
        if after is not None and after > last:
            return self._between(last, after)  # the next one is in order again
        if pts < self._last_pts:
            before, back = self.shift, self._last_pts - pts
            placed = self._begin_anew(pts, last)
            if back * self.time_base >= 1:
                self._old_shift, self._doubted = before, 0
            return placed
        self.repaired += 1
        # One of many equal ones keeps the frame rate; after them the clock catches up.
        return last + (self.frame_ticks if pts == self._last_pts else 1)

    def _between(self, last: int, after: int) -> int:
        self.repaired += 1
        return last + max(1, min(self.frame_ticks, (after - last) // 2))

    def _begin_anew(self, pts: int, last: int) -> int:
        self.jumps += 1
        self._old_shift = None
        self.shift = last + self.frame_ticks - pts
        return last + self.frame_ticks

    @property
    def _jump_ticks(self) -> int:
        return min(int(_JUMP_MAX_S / self.time_base), _JUMP_MAX_TICKS - self.frame_ticks)


def written_base(time_base: Fraction) -> Fraction:
    """Return the time base to write: the source's, or microseconds where that is finer than 0.1 us.

    With 1 ns, which Matroska may use, an MP4 could hold no pause of more than two seconds.
    """
    return time_base if time_base >= _FINEST else Fraction(1, 1_000_000)
