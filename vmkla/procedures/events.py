"""What happens to lesions: the events that the tracker reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

EventKind = Literal["started", "ended", "merged", "split", "cut", "returned", "jump"]


@dataclass(frozen=True)
class Event:
    """An event of one frame.

    Attributes:
        kind: ``started``: a new lesion; ``ended``: a lesion that is not waited for any longer; ``merged``:
            its finding has become one with that of another lesion; ``split``: it has become separate from
            another one; ``cut``: another scene; ``returned``: the scene before the cut is back; ``jump``:
            times that go back, or forward by more than the tracker bridges.
        lesion: number of the lesion; None for scenes and times.
        other: number of the lesion that it merged with or split from.
        candidates: of a new lesion: earlier lesions that it could be, with a score of 0 to 1.
    """

    kind: EventKind
    lesion: int | None = None
    other: int | None = None
    candidates: tuple[tuple[int, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the fields that are not set."""
        values: dict[str, Any] = {"kind": self.kind}
        if self.lesion is not None:
            values["lesion"] = self.lesion
        if self.other is not None:
            values["other"] = self.other
        if self.candidates:
            values["candidates"] = [[number, round(score, 4)] for number, score in self.candidates]
        return values
