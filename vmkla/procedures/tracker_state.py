"""The tracker's options, and what it knows between two frames: plain values of limited size."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vmkla.errors import BadInputError, UsageError
from vmkla.plain_values import from_plain
from vmkla.procedures.appearance import Appearance
from vmkla.procedures.boxes import Box
from vmkla.procedures.scene import Thumbnail, thumbnail_of_grey

MAX_LESIONS = 64
"""Number of lesions that are remembered; beyond it, the one that was lost first is forgotten."""
_MAX_THUMBNAIL_BYTES = 1 << 22


@dataclass(frozen=True)
class TrackerOptions:
    """Limits of the tracker, in seconds.

    Attributes:
        bridge_s: longest time without a finding after which a lesion keeps its number.
        merge_s: longest time that a merged lesion is remembered while the other one is seen.
        split_s: time after which a separate piece of a lesion becomes a lesion of its own.
        candidate_s: longest gap over which an earlier lesion is reported as a candidate of a new one, to be
            joined later; at most ``bridge_s`` reports none.
    Raises:
        UsageError: a limit is not above 0.
    """

    bridge_s: float = 2.0
    merge_s: float = 5.0
    split_s: float = 0.5
    candidate_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("bridge_s", "merge_s", "split_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}, expected more than 0 seconds")


@dataclass(frozen=True)
class Lesion:
    """A lesion that may be seen again.

    Attributes:
        number: its identity, from 1.
        class_index: class of its findings.
        box: where it is in the newest frame, or would be if it were visible, px.
        extent: box around all pieces in which it was last seen, moved like ``box``, px.
        velocity: px per second, across and down; used where the scene cannot be followed.
        appearance: colour; None without frames.
        seen_s: time when its place was last known, seconds.
        drift_px: how far it may be from ``box``.
        host: number of the lesion that it has merged with; None while it is separate.
        merged_s: time when it merged, seconds.
        parted_s: time since when it is seen in several pieces, seconds; None in one piece.
        away: whether it belongs to the scene before the cut.
        ended: whether it was lost for too long, and only serves as a candidate.
    """

    number: int
    class_index: int
    box: Box
    extent: Box
    velocity: tuple[float, float]
    appearance: Appearance | None
    seen_s: float
    drift_px: float = 0.0
    host: int | None = None
    merged_s: float | None = None
    parted_s: float | None = None
    away: bool = False
    ended: bool = False


@dataclass(frozen=True, eq=False)
class TrackerState:
    """What the tracker knows after a frame.

    Attributes:
        next_number: number of the next new lesion.
        time_s: time of the newest frame, seconds; None before the first.
        looked_s: time of the newest frame that was searched for findings, seconds.
        scene: thumbnail of the newest frame; None without frames.
        away_scene: thumbnail of the last frame before a cut, while that scene may return.
        away_s: its time, seconds.
        lesions: lesions that may be seen again, at most ``MAX_LESIONS``.
    """

    next_number: int = 1
    time_s: float | None = None
    looked_s: float | None = None
    scene: Thumbnail | None = None
    away_scene: Thumbnail | None = None
    away_s: float | None = None
    lesions: tuple[Lesion, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, from which ``from_dict`` restores an equal state."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["scene"], values["away_scene"] = _plain(self.scene), _plain(self.away_scene)
        values["lesions"] = [dataclasses.asdict(lesion) for lesion in self.lesions]
        return values

    def delayed(self, by_s: float) -> TrackerState:
        """Return the state as if all of it had happened later, for a time in which nothing was tracked.

        Args:
            by_s: how much later, seconds.
        """

        def later(time_s: float | None) -> float | None:
            return None if time_s is None else time_s + by_s

        lesions = tuple(
            replace(
                lesion,
                seen_s=lesion.seen_s + by_s,
                merged_s=later(lesion.merged_s),
                parted_s=later(lesion.parted_s),
            )
            for lesion in self.lesions
        )
        return replace(
            self,
            time_s=later(self.time_s),
            looked_s=later(self.looked_s),
            away_s=later(self.away_s),
            lesions=lesions,
        )

    @classmethod
    def from_dict(cls, values: Any) -> TrackerState:
        """Restore a state.

        Raises:
            BadInputError: the values are not those of a state.
        """
        try:
            stored = from_plain(_Stored, values, "tracker state")
            if len(stored.lesions) > MAX_LESIONS:
                raise ValueError(f"{len(stored.lesions)} lesions, expected at most {MAX_LESIONS}")
            numbers = {lesion.number for lesion in stored.lesions}
            if len(numbers) < len(stored.lesions) or not 0 < min(numbers, default=1):
                raise ValueError("its lesions do not have numbers of their own, from 1")
            if max(numbers, default=0) >= stored.next_number:
                raise ValueError(f"the next number {stored.next_number} is taken")
            if any(min(*lesion.box[2:], *lesion.extent[2:]) <= 0 for lesion in stored.lesions):
                raise ValueError("a box has no area")
            scenes = {"scene": _scene(stored.scene), "away_scene": _scene(stored.away_scene)}
            return cls(**{**vars(stored), **scenes})
        except (TypeError, KeyError, ValueError) as error:
            raise BadInputError(
                f"the tracker's state cannot be restored: {error}",
                hint="Start a new tracker; its lesions get new numbers.",
            ) from error


@dataclass(frozen=True)
class _StoredScene:
    """A thumbnail as plain values.

    Attributes:
        grey: base64 of its bytes.
        hw: its height and width, px.
        shrink: as in ``Thumbnail``.
    """

    grey: str
    hw: tuple[int, int]
    shrink: tuple[float, float]


@dataclass(frozen=True)
class _Stored:
    """The types of the plain values of a state."""

    next_number: int
    time_s: float | None
    looked_s: float | None
    scene: _StoredScene | None
    away_scene: _StoredScene | None
    away_s: float | None
    lesions: tuple[Lesion, ...]


def _plain(scene: Thumbnail | None) -> dict[str, Any] | None:
    if scene is None:
        return None
    grey = base64.b64encode(np.ascontiguousarray(scene.grey).tobytes()).decode("ascii")
    return {"grey": grey, "hw": list(scene.grey.shape), "shrink": list(scene.shrink)}


def _scene(stored: _StoredScene | None) -> Thumbnail | None:
    if stored is None:
        return None
    if len(stored.grey) > _MAX_THUMBNAIL_BYTES or min(stored.hw) < 1 or min(stored.shrink) <= 0:
        raise ValueError("its thumbnail has no sensible size")
    try:
        content = base64.b64decode(stored.grey, validate=True)
    except binascii.Error as error:
        raise ValueError("its thumbnail is not base64") from error
    if len(content) != stored.hw[0] * stored.hw[1]:
        raise ValueError(f"its thumbnail has {len(content)} bytes, expected {stored.hw[0]} x {stored.hw[1]}")
    return thumbnail_of_grey(np.frombuffer(content, np.uint8).reshape(stored.hw), stored.shrink)
