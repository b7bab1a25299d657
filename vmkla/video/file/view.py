"""The field of view of a source's frames: one for each frame size."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmkla.segment.preprocess import Rect, field_of_view, union, visible_field
from vmkla.video.media.frames import Frame, Source

FIELD_EVERY, FIELD_SAMPLES = 5, 8
"""The field of view is the union over eight of every fifth frame: a single one may be dark at an edge."""

_FIELD_FRAMES_MAX = 300
"""Number of frames of a video that are searched for its field of view."""

Size = tuple[int, int]


@dataclass
class _Seen:
    """Frames of one size: their number, and their field of view so far."""

    frames: int = 0
    found: list[Rect] = field(default_factory=list)
    rect: Rect | None = None


class Views:
    """The part of each frame that the network sees.

    Each image has its own field of view. A video has one for each frame size: for the first size it is given
    or found beforehand. For another size it is searched in the frames as they come, even when a rectangle was
    given, since that is in pixels of the first size; only ``"none"`` applies to all sizes.

    Args:
        roi: ``"auto"``, ``"none"`` or a rectangle of the first size.
        first: field of view found for the first size; None uses ``roi``.
        searched_in_vain: number of frames in which no field of view was found for the first size.
    """

    def __init__(self, roi: str | Rect, first: Rect | None = None, searched_in_vain: int = 0) -> None:
        self.searched_in_vain = searched_in_vain
        self._roi, self._first = roi, first
        self._sizes: dict[Size, _Seen] = {}

    @classmethod
    def of_source(cls, source: Source, roi: str | Rect) -> Views:
        """Search the first frames of a video for their field of view, where ``roi`` is ``"auto"``."""
        if source.kind != "video" or roi != "auto":
            return cls(roi)
        rect, searched = _field_of_video(source)
        return cls(roi, rect, 0 if rect else searched)

    @classmethod
    def of_sequence(cls, source: Source, roi: str | Rect) -> Views:
        """Take images as the frames of one video: where ``roi`` is ``"auto"``, all have one field of view."""
        if source.kind == "video" or roi != "auto":
            return cls.of_source(source, roi)
        return cls(_field_of_video(source)[0] or "none")

    def of(self, frame: Frame) -> Rect:
        """Return the part of a frame that the network sees."""
        if frame.traits is None:
            return field_of_view(frame.rgb, self._roi)
        size_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        is_first = not self._sizes
        seen = self._sizes.setdefault(size_hw, _Seen())
        if is_first:
            seen.rect = self._first or field_of_view(frame.rgb, self._roi)
        elif self._roi == "none":
            seen.rect = Rect(0, 0, size_hw[1], size_hw[0])
        elif next(iter(self._sizes)) != size_hw:
            self._look(seen, frame)
        seen.frames += 1
        return seen.rect or Rect(0, 0, size_hw[1], size_hw[0])

    def to_list(self) -> list[dict[str, object]]:
        """Return each size with its field of view and number of segmented frames, for the report."""
        return [
            {"frame_hw": list(size_hw), "segmented": seen.frames, "field_of_view": _listed(seen.rect)}
            for size_hw, seen in self._sizes.items()
        ]

    def _look(self, seen: _Seen, frame: Frame) -> None:
        if len(seen.found) < FIELD_SAMPLES and (seen.rect is None or seen.frames % FIELD_EVERY == 0):
            rect = visible_field(frame.rgb)
            if rect is not None:
                seen.found.append(rect)
                seen.rect = union(seen.found)


def _listed(rect: Rect | None) -> list[int] | None:
    return None if rect is None else list(rect)


def _field_of_video(source: Source) -> tuple[Rect | None, int]:
    """Return the field of view over a clip's first lit frames, and the number of searched frames."""
    found: list[Rect] = []
    searched, first_hw = 0, None
    frames = source.frames()
    for frame in frames:
        first_hw = first_hw or frame.rgb.shape[:2]
        if frame.rgb.shape[:2] != first_hw:
            break
        searched += 1
        field = visible_field(frame.rgb) if frame.index % FIELD_EVERY == 0 else None
        if field is not None:
            found.append(field)
        if len(found) == FIELD_SAMPLES or searched == _FIELD_FRAMES_MAX:
            break
    frames.close()
    return union(found), searched
