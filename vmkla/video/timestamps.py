"""Timestamps that a file may carry as they are: present, rising, from zero or later."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass
class Timeline:
    """Passes good timestamps through untouched and mends the others, counting what it does.

    A missing one follows the last by the clip's frame duration. A repeated one, or one that steps back by
    less than a second, follows the last by one tick. A step back by more is a new beginning (a recorder
    that was restarted): everything after it is moved to follow on. A clip that begins below zero is moved
    to zero, since an MP4 player would skip what lies before.

    Attributes:
        time_base: seconds per tick.
        frame_ticks: ticks from frame to frame, for gaps; at least 1.
        repaired: timestamps that were missing or did not rise.
        shift: ticks now added to each timestamp.
    """

    time_base: Fraction
    frame_ticks: int
    repaired: int = 0
    shift: int = 0
    _last: int | None = field(default=None, repr=False)

    def place(self, pts: int | None) -> int:
        """The timestamp that a frame gets, in ticks; greater than all before."""
        last = self._last
        if last is None:
            if pts is None:
                self.repaired += 1
            elif pts < 0:
                self.shift = -pts
            placed = 0 if pts is None else pts + self.shift
        elif pts is None:
            self.repaired += 1
            placed = last + self.frame_ticks
        else:
            placed = pts + self.shift
            if placed <= last:
                self.repaired += 1
                if (last - placed) * self.time_base >= 1:
                    self.shift += last + self.frame_ticks - placed
                    placed = last + self.frame_ticks
                else:
                    placed = last + 1
        self._last = placed
        return placed
