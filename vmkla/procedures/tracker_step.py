"""One step of the tracker: from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vmkla.procedures import boxes
from vmkla.procedures.appearance import Appearance, blend
from vmkla.procedures.assignment import Assignment
from vmkla.procedures.boxes import Box
from vmkla.procedures.carrying import carry
from vmkla.procedures.events import Event
from vmkla.procedures.motion import follow_all
from vmkla.procedures.scene import CHANGE_LIMIT, CUT_LIMIT, Thumbnail, change
from vmkla.procedures.scoring import LEAST_CANDIDATE, LEAST_SCORE, score
from vmkla.procedures.tracker_state import MAX_LESIONS, Lesion, TrackerOptions, TrackerState
from vmkla.segment.preprocess import Rect

_COVERED = 0.5
"""Share of a lesion's box inside another finding from which they have merged; of a piece in its lesion."""
_HOSTING = 1.0
"""Added to the scores of a lesion that others have merged with: a single finding stays with it."""
_COLOUR_BLEND, _VELOCITY_BLEND = 0.2, 0.5
"""Share of a new frame in a lesion's colour and velocity."""
_PARTIAL, _PARTIAL_BLEND = 0.5, 0.2
"""Area below which a finding inside its lesion is only a part of it; its share in the lesion's box then."""
_SPECK, _SPECK_MARGIN = 0.1, 0.1
"""Area of a speck beside a finding and its distance, shares of the finding's area and diagonal."""


@dataclass(frozen=True)
class Finding:
    """A finding of the newest frame, ready to be scored."""

    box: Box
    class_index: int
    appearance: Appearance | None


class TrackerStep:
    """One step of the tracker.

    Attributes:
        lesions: lesions that may be seen again, by number.
        events: what happened so far.
    """

    def __init__(
        self, options: TrackerOptions, assignment: Assignment, state: TrackerState, time_s: float
    ) -> None:
        self._options, self._assignment, self._state, self._time_s = options, assignment, state, time_s
        self._away_scene, self._away_s = state.away_scene, state.away_s
        self._next = state.next_number
        self.lesions = {lesion.number: lesion for lesion in state.lesions}
        self.events: list[Event] = []

    # --- what changes without findings

    def watch_time(self) -> None:
        """End all lesions where the time goes back, or forward by more than is bridged."""
        before = self._state.time_s
        if before is None or 0 <= self._time_s - before <= self._options.bridge_s:
            return
        self.events.append(Event("jump"))
        self._end(list(self.lesions.values()))
        self._away_scene = self._away_s = None

    def watch_scene(self, scene: Thumbnail | None) -> None:
        """Set lesions aside at a cut, take them back when their scene returns, and move the others."""
        before = self._state.scene
        elapsed_s = 0.0 if self._state.time_s is None else self._time_s - self._state.time_s
        here = [lesion for lesion in self.lesions.values() if not lesion.away]
        if scene is not None and before is not None and _is_cut(before, scene, here):
            self.events.append(Event("cut"))
            if self._away_scene is None and here:
                self._away_scene, self._away_s = before, self._state.time_s
                self._store(*(replace(lesion, away=True) for lesion in here))
            else:
                self._end(here)
            before = None
        if self._away_s is not None and self._time_s - self._away_s > self._options.bridge_s:
            self._end([lesion for lesion in self.lesions.values() if lesion.away])
            self._away_scene = self._away_s = None
        away, away_s = self._away_scene, self._away_s
        gone = [lesion for lesion in self.lesions.values() if lesion.away]
        if scene is not None and away is not None and away_s is not None and not _is_cut(away, scene, gone):
            self.events.append(Event("returned"))
            self._end([lesion for lesion in self.lesions.values() if not lesion.away])
            self._store(*(replace(lesion, away=False) for lesion in self.lesions.values()))
            before, elapsed_s = away, self._time_s - away_s
            self._away_scene = self._away_s = None
        here = [lesion for lesion in self.lesions.values() if not lesion.away]
        self._store(*carry(here, before, scene, elapsed_s))

    def expire(self) -> None:
        """End lesions that are not waited for any longer, and forget those that cannot be candidates."""
        options, now_s = self._options, self._time_s
        forgotten_s = max(options.bridge_s, options.candidate_s)
        for lesion in list(self.lesions.values()):
            if lesion.merged_s is not None and now_s - lesion.merged_s > options.merge_s:
                self._end([lesion])
            elif self._lost_s(lesion, now_s) > forgotten_s:
                self._end([lesion])
            elif self._dormant(lesion) and not lesion.ended:
                self._store(replace(lesion, ended=True))
                self.events.append(Event("ended", lesion.number))
        spare = len(self.lesions) - MAX_LESIONS
        if spare > 0:
            self._end(sorted(self.lesions.values(), key=lambda lesion: lesion.seen_s)[:spare])

    def new_state(self, scene: Thumbnail | None, *, looked: bool) -> TrackerState:
        """Return what is known after this frame."""
        looked_s = self._time_s if looked else self._state.looked_s
        lesions = tuple(self.lesions.values())
        return TrackerState(
            self._next, self._time_s, looked_s, scene, self._away_scene, self._away_s, lesions
        )

    # --- findings

    def number(self, findings: Sequence[Finding]) -> tuple[int | None, ...]:
        """Return the lesion of each finding."""
        numbers: list[int | None] = [None] * len(findings)
        open_lesions = [
            lesion for lesion in self.lesions.values() if not lesion.away and not self._dormant(lesion)
        ]
        extents = {lesion.number: lesion.extent for lesion in open_lesions}
        seen = self._associate(open_lesions, findings, numbers)
        self._merge([lesion for lesion in open_lesions if lesion.number not in seen], findings, seen)
        for number, index in seen.items():
            self._see(self.lesions[number], findings[index])
        found = {number: findings[index] for number, index in seen.items()}
        for index, finding in enumerate(findings):
            if numbers[index] is not None:
                continue
            numbers[index] = self._speck(finding, found) or self._piece(finding, extents, seen)
            if numbers[index] is None:
                numbers[index] = self._start(finding, numbers)
                found[self._next - 1] = finding
        self._rejoin(numbers)
        return tuple(numbers)

    def _associate(
        self, lesions: Sequence[Lesion], findings: Sequence[Finding], numbers: list[int | None]
    ) -> dict[int, int]:
        """Assign findings to lesions; return the finding's index by the lesion's number."""
        if not lesions or not findings:
            return {}
        guests = [self._guests(lesion) for lesion in lesions]
        scores = np.array(
            [
                [self._score(lesion, inside, finding) for finding in findings]
                for lesion, inside in zip(lesions, guests, strict=True)
            ]
        )
        hosting = np.array([[bool(inside)] for inside in guests])
        scores = np.where((scores >= LEAST_SCORE) & hosting, scores + _HOSTING, scores)
        seen: dict[int, int] = {}
        for row, index in self._assignment.pairs(scores, LEAST_SCORE):
            lesion = lesions[row]
            numbers[index] = lesion.number
            seen[lesion.number] = index
            if lesion.host is not None:
                self.events.append(Event("split", lesion.number, lesion.host))
                self._store(replace(lesion, host=None, merged_s=None))
        return seen

    def _score(self, lesion: Lesion, guests: Sequence[Lesion], finding: Finding) -> float:
        """Score a finding; one that holds merged lesions is compared with the box around them as well."""
        merged = bool(guests) or lesion.host is not None
        own = score(lesion, finding.box, finding.class_index, finding.appearance, merged=merged)
        if not guests:
            return own
        around = lesion.box
        for guest in guests:
            around = boxes.enclosing(around, guest.box)
        whole = replace(lesion, box=around, appearance=None)
        return max(own, score(whole, finding.box, finding.class_index, None))

    def _merge(self, unseen: Sequence[Lesion], findings: Sequence[Finding], seen: dict[int, int]) -> None:
        """Let lesions wait inside the finding that covers them."""
        for lesion in unseen:
            if lesion.host is None and lesion.seen_s != self._state.looked_s:
                continue  # it was lost before
            covers = {
                number: boxes.coverage(lesion.box, findings[index].box)
                for number, index in seen.items()
                if findings[index].class_index == lesion.class_index
            }
            host = lesion.host if lesion.host in covers else max(covers, key=covers.__getitem__, default=None)
            if host is None or (host != lesion.host and covers[host] < _COVERED):
                continue
            if lesion.host is None:
                self.events.append(Event("merged", lesion.number, host))
            merged_s = self._time_s if lesion.merged_s is None else lesion.merged_s
            self._store(replace(lesion, host=host, merged_s=merged_s))

    def _see(self, lesion: Lesion, finding: Finding) -> None:
        """Bring a lesion up to date with its finding."""
        if self._guests(lesion):
            self._see_merged(lesion, finding)
            return
        elapsed_s = self._time_s - lesion.seen_s
        velocity = lesion.velocity
        if elapsed_s > 0:
            # ``box`` was moved by the velocity or with the scene; what is left is the error of that.
            (x, y), (to_x, to_y) = boxes.centre(lesion.box), boxes.centre(finding.box)
            velocity = (
                velocity[0] + _VELOCITY_BLEND * (to_x - x) / elapsed_s,
                velocity[1] + _VELOCITY_BLEND * (to_y - y) / elapsed_s,
            )
        box = finding.box
        area = lesion.box[2] * lesion.box[3]
        if box[2] * box[3] < _PARTIAL * area and boxes.coverage(box, lesion.box) >= 1 - _PARTIAL_BLEND:
            box, velocity = boxes.blended(lesion.box, box, _PARTIAL_BLEND), lesion.velocity
        self._store(
            replace(
                lesion,
                box=box,
                extent=box,
                velocity=velocity,
                appearance=blend(lesion.appearance, finding.appearance, _COLOUR_BLEND),
                seen_s=self._time_s,
                drift_px=0.0,
            )
        )

    def _see_merged(self, host: Lesion, finding: Finding) -> None:
        """Bring merged lesions up to date: each keeps its place in the finding that holds them all.

        Lesions lie on a wall, so they are expected to separate on the sides on which they met; but where
        colours say that they have passed each other, any place in the finding is possible.
        """
        guests = self._guests(host)
        x = y = 0.0
        if any(guest.merged_s != self._time_s for guest in guests):  # ``extent`` was the finding before
            (from_x, from_y), (to_x, to_y) = boxes.centre(host.extent), boxes.centre(finding.box)
            x, y = to_x - from_x, to_y - from_y
        for lesion in (host, *guests):
            box = boxes.centred_within(boxes.shifted(lesion.box, x, y), finding.box)
            self._store(
                replace(
                    lesion,
                    box=box,
                    extent=finding.box if lesion is host else box,
                    velocity=(0.0, 0.0),
                    seen_s=self._time_s,
                    drift_px=boxes.diagonal(finding.box) / 2,
                )
            )

    def _speck(self, finding: Finding, found: dict[int, Finding]) -> int | None:
        """Return the lesion of a much larger finding that a speck lies in or beside, or None."""
        for number, other in found.items():
            if (
                other.class_index == finding.class_index
                and finding.box[2] * finding.box[3] < _SPECK * other.box[2] * other.box[3]
                and boxes.coverage(finding.box, boxes.widened(other.box, _SPECK_MARGIN)) >= _COVERED
            ):
                return number
        return None

    def _piece(self, finding: Finding, extents: dict[int, Box], seen: dict[int, int]) -> int | None:
        """Return the lesion that a finding is a piece of, widening its extent, or None."""
        inside = {
            number: boxes.coverage(finding.box, extents[number])
            for number in seen
            if self.lesions[number].class_index == finding.class_index
        }
        number = max(inside, key=inside.__getitem__, default=None)
        if number is None or inside[number] < _COVERED:
            return None
        lesion = self.lesions[number]
        if lesion.parted_s is not None and self._time_s - lesion.parted_s > self._options.split_s:
            self.events.append(Event("split", self._next, number))
            return None
        parted_s = self._time_s if lesion.parted_s is None else lesion.parted_s
        self._store(replace(lesion, extent=boxes.enclosing(lesion.extent, finding.box), parted_s=parted_s))
        return number

    def _start(self, finding: Finding, numbers: Sequence[int | None]) -> int:
        """Start a lesion, and report the earlier ones that it could be."""
        taken = {number for number in numbers if number is not None}
        scores = {
            lesion.number: score(lesion, finding.box, finding.class_index, finding.appearance)
            for lesion in self.lesions.values()
            if lesion.number not in taken
            and lesion.host is None
            and not lesion.away
            and self._options.candidate_s > self._options.bridge_s
        }
        candidates = tuple(
            (number, value) for number, value in sorted(scores.items()) if value >= LEAST_CANDIDATE
        )
        number, self._next = self._next, self._next + 1
        self._store(
            Lesion(
                number,
                finding.class_index,
                finding.box,
                finding.box,
                (0.0, 0.0),
                finding.appearance,
                self._time_s,
            )
        )
        self.events.append(Event("started", number, candidates=candidates))
        return number

    def _rejoin(self, numbers: Sequence[int | None]) -> None:
        """Note which lesions are seen in one piece again."""
        for lesion in list(self.lesions.values()):
            if lesion.parted_s is not None and numbers.count(lesion.number) == 1:
                self._store(replace(lesion, parted_s=None))

    # --- lesions

    def _guests(self, lesion: Lesion) -> list[Lesion]:
        """Return the lesions that have merged with this one."""
        return [other for other in self.lesions.values() if other.host == lesion.number]

    def _lost_s(self, lesion: Lesion, now_s: float) -> float:
        """Return for how long a lesion has been missing; frames that were not searched do not count."""
        return 0.0 if lesion.seen_s == self._state.looked_s else now_s - lesion.seen_s

    def _dormant(self, lesion: Lesion) -> bool:
        """Whether a lesion was lost for too long to be continued, and only serves as a candidate."""
        return lesion.ended or self._lost_s(lesion, self._time_s) > self._options.bridge_s

    def _store(self, *lesions: Lesion) -> None:
        for lesion in lesions:
            self.lesions[lesion.number] = lesion

    def _end(self, lesions: Sequence[Lesion]) -> None:
        """Forget lesions; those that wait inside one of them are separate again."""
        for lesion in lesions:
            del self.lesions[lesion.number]
            if not lesion.ended:
                self.events.append(Event("ended", lesion.number))
        gone = {lesion.number for lesion in lesions}
        for lesion in list(self.lesions.values()):
            if lesion.host in gone:
                self._store(replace(lesion, host=None, merged_s=None))


def _is_cut(before: Thumbnail, after: Thumbnail, lesions: Sequence[Lesion]) -> bool:
    """Whether two frames are of different sizes or show different scenes.

    Neighbouring frames differ little. Frames further apart may differ as much as those of two scenes, so
    between the limits it counts whether a lesion (without one: anything) is found again.
    """
    if before.grey.shape != after.grey.shape or before.shrink != after.shrink:
        return True
    changed = change(before, after)
    if not CUT_LIMIT < changed <= CHANGE_LIMIT:
        return changed > CHANGE_LIMIT
    height_px, width_px = before.grey.shape
    whole = Rect(0, 0, round(width_px * before.shrink[0]), round(height_px * before.shrink[1]))
    places = [boxes.to_rect(lesion.box) for lesion in lesions] or [whole]
    return all(motion is None for motion in follow_all(before, after, places))
