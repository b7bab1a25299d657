"""Join lesions after the fact: decide from stored rows which numbers belong to one lesion.

The tracker knows only the past. It gives a lesion that returns after a long gap a new number, and reports in
``lesion_events`` which earlier ones it could be; a piece that stays apart gets a number of its own, and may
turn out to be a piece when both are one finding again. With all rows at hand, both are decided here. No box
is invented and no finding is dropped: only numbers change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmkla.procedures.assignment import Assignment
from vmkla.procedures.scoring import LEAST_CANDIDATE

CANDIDATE_S = 6.0
"""Longest gap after which a lesion may be joined to an earlier one, seconds; see ``TrackerOptions``."""
_WHOLE_LIFE_FRAMES = 5
"""Frames from which a later lesion is a full candidate: a short false alarm must not take its place."""
_AT_ONCE = 500
"""Later lesions that are assigned at once: hours of flicker in one place would be one matrix of thousands."""
_PIECE_S = 2.0
"""Time for which a piece may be apart, seconds; two findings that stay apart for longer are two lesions."""


@dataclass
class _Life:
    """The frames with a lesion: number, first and last time in seconds."""

    frames: int
    first_s: float
    last_s: float


class LookAhead:
    """Collects what decides on joining from rows of ``frames.jsonl``, in the order of time.

    Raises:
        MissingDependencyError: the package ``lap`` is not installed.
    """

    def __init__(self) -> None:
        self._assignment = Assignment()
        self._lives: dict[int, _Life] = {}
        self._candidates: dict[tuple[int, int], float] = {}  # (later, earlier) to score
        self._split_from: dict[int, int] = {}
        self._pieces: dict[int, int] = {}  # a lesion to the one that it was a piece of

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in one row; rows without times or lesions change nothing."""
        numbers, time_s = row.get("box_lesions"), row.get("pts_s")
        if time_s is None:
            return
        for number in numbers or ():
            if number is None:
                continue
            life = self._lives.setdefault(number, _Life(0, time_s, time_s))
            life.frames, life.last_s = life.frames + 1, time_s
        for event in row.get("lesion_events", ()):
            lesion, other = event.get("lesion"), event.get("other")
            if event["kind"] == "started":
                for earlier, score in event.get("candidates", ()):
                    self._candidates[lesion, earlier] = score
            elif event["kind"] == "split":
                began = self._lives.get(lesion)
                if began is not None and began.first_s == time_s:  # it was never a lesion of its own
                    self._split_from[lesion] = other
            elif event["kind"] == "merged":
                self._note_merge(lesion, other, time_s)

    def joined(self) -> dict[int, int]:
        """Return the final number of each lesion that is joined to an earlier one."""
        joined: dict[int, int] = {}
        for number, parent in sorted({**self._pieces, **self._returns()}.items()):
            joined[number] = joined.get(parent, parent)  # numbers rise with time, so it is known by now
        return joined

    def _note_merge(self, lesion: int, other: int, time_s: float) -> None:
        """Note a piece that has soon become one finding again with the lesion that it split from."""
        for piece, whole in ((lesion, other), (other, lesion)):
            if self._split_from.get(piece) == whole and time_s - self._lives[piece].first_s <= _PIECE_S:
                self._pieces[piece] = whole

    def _returns(self) -> dict[int, int]:
        """Assign lesions that began after a gap to lesions that had ended."""
        lives = self._lives_with_pieces()
        possible: dict[tuple[int, int], float] = {}
        for (later, candidate), score in self._candidates.items():
            earlier = _root(candidate, self._pieces)
            if later in lives and earlier in lives and lives[earlier].last_s < lives[later].first_s:
                weight = min(1.0, lives[later].frames / _WHOLE_LIFE_FRAMES)
                possible[later, earlier] = max(score * weight, possible.get((later, earlier), 0.0))
        returns: dict[int, int] = {}
        taken: set[int] = set()
        for earliers_of in _connected(possible):
            for begin in range(0, len(earliers_of), _AT_ONCE):
                laters = sorted(earliers_of)[begin : begin + _AT_ONCE]
                earliers = sorted({each for later in laters for each in earliers_of[later]} - taken)
                scores = np.array(
                    [[possible.get((later, earlier), -1.0) for earlier in earliers] for later in laters]
                )
                for row, column in self._assignment.pairs(scores, LEAST_CANDIDATE):
                    returns[laters[row]] = earliers[column]
                    taken.add(earliers[column])
        return returns

    def _lives_with_pieces(self) -> dict[int, _Life]:
        """Return the lives of whole lesions, each as long as that of its longest piece."""
        lives: dict[int, _Life] = {}
        for number, life in sorted(self._lives.items()):
            whole = lives.setdefault(_root(number, self._pieces), _Life(0, life.first_s, life.last_s))
            whole.frames, whole.last_s = whole.frames + life.frames, max(whole.last_s, life.last_s)
        return lives


def _connected(pairs: Mapping[tuple[int, int], float]) -> list[dict[int, list[int]]]:
    """Group pairs that compete with each other, each group as the earlier lesions of each later one."""
    parents: dict[tuple[str, int], tuple[str, int]] = {}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents.setdefault(parent, parent)
            node = parent
        return node

    for later, earlier in pairs:
        parents[root(("later", later))] = root(("earlier", earlier))
    groups: dict[tuple[str, int], dict[int, list[int]]] = {}
    for later, earlier in sorted(pairs):
        groups.setdefault(root(("later", later)), {}).setdefault(later, []).append(earlier)
    return list(groups.values())


def _root(number: int, parents: Mapping[int, int]) -> int:
    """Follow joins to the first lesion; numbers rise with time, so joins never form a circle."""
    while number in parents and parents[number] < number:
        number = parents[number]
    return number
