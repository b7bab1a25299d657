"""Spans of time in lanes, whose number stays bounded however long a procedure is."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[float, float]
"""First and last time, seconds; equal for a moment."""

_FINEST_S = 0.02
"""First distance below which spans are joined, where there are too many; about one frame."""


class Lanes:
    """Spans by lane. Where they become too many, those that lie closest together are joined.

    Args:
        most: number of spans in all lanes that are kept; at least the number of lanes.

    Attributes:
        spans: the spans of each lane, in the order in which the lanes were named. A lane's spans are in the
            order of time after ``limit``.
        joined_s: spans of a lane that lie at most this far apart are one, seconds; 0 where none were joined.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self.spans: dict[str, list[Span]] = {}
        self.joined_s = 0.0

    def add(self, lane: str, spans: Iterable[Span]) -> None:
        """Add spans to a lane, which is made where it is new."""
        own = self.spans.setdefault(lane, [])
        for span in spans:
            own.append(span)
            self._count += 1
            if self._count > 2 * self._most:
                self.limit(self._most)

    def limit(self, most: int) -> None:
        """Join spans until there are at most ``most``."""
        self._join()
        while self._count > most:
            self.joined_s = max(_FINEST_S, 2 * self.joined_s)
            self._join()

    def _join(self) -> None:
        for own in self.spans.values():
            own[:] = joined(own, self.joined_s)
        self._count = sum(map(len, self.spans.values()))


def joined(spans: Iterable[Span], distance_s: float) -> list[Span]:
    """Join spans that overlap or lie at most a distance apart; the result is in the order of time."""
    result: list[Span] = []
    for start_s, end_s in sorted(spans):
        if result and start_s - result[-1][1] <= distance_s:
            result[-1] = (result[-1][0], max(result[-1][1], end_s))
        else:
            result.append((start_s, end_s))
    return result
