"""Read what a run has left in its folder: report, rows and lesions, also of an interrupted or older run."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vmkla.bounded import MalformedError, parse_json, parse_names, read_file
from vmkla.errors import BadInputError
from vmkla.files import open_regular
from vmkla.plain_values import from_plain
from vmkla.procedures.files import ROW_MAX_BYTES, still_names
from vmkla.procedures.report.spans import Span
from vmkla.procedures.stills import STILL_MAX_BYTES

T = TypeVar("T")

_DOCUMENT_MAX_BYTES = 16 << 20
_LATEST_S = 1e7
"""Largest time of a row, seconds, which is months: anything beyond it is damage."""
_SIDE_MAX_PX = 1 << 16
_PER_BOX: dict[str, tuple[type, ...]] = {
    "box_areas_px": (int,),
    "box_peaks": (float, int),
    "box_lesions": (int, type(None)),
    "box_classes": (int,),
}
_OPTIONAL = ("box_lesions", "box_classes")
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Row:
    """What the report needs of a row of ``frames.jsonl``.

    Attributes:
        time_s: time of the frame, seconds.
        values: the row as it was written.
        found: whether it has a finding; None where it was not segmented.
        poor: why its picture is poor, or None.
        events: what happened: ``"cut"``, ``"returned"`` or ``"jump"``.
    """

    time_s: float
    values: dict[str, Any]
    found: bool | None
    poor: str | None
    events: tuple[str, ...]


@dataclass(frozen=True)
class StoredStill:
    """A lesion's still: time in seconds, None where unknown, and names relative to the run's folder."""

    pts_s: float | None
    image: str
    marked: str


@dataclass(frozen=True)
class StoredLesion:
    """What the report needs of a row of ``lesions.jsonl``; see ``LesionRecord``."""

    id: int
    first_s: float
    last_s: float
    frames: int
    gaps: tuple[tuple[float, float], ...]
    peak_probability: float
    largest_area_fraction: float
    first_marker_after_s: float | None
    joined: tuple[int, ...] = ()
    class_index: int | None = None
    still: StoredStill | None = None
    gaps_left_out_s: float = 0.0

    @property
    def spans(self) -> list[Span]:
        """Times from which to which it was seen without a gap that is listed, seconds."""
        starts = [self.first_s, *(gap[1] for gap in self.gaps)]
        ends = [*(gap[0] for gap in self.gaps), self.last_s]
        return list(zip(starts, ends, strict=True))

    @property
    def seen_s(self) -> float:
        """Time for which it was seen, without gaps, seconds."""
        return sum(end_s - start_s for start_s, end_s in self.spans) - self.gaps_left_out_s

    @property
    def rank(self) -> tuple[float, float, int]:
        """Larger for a lesion that matters more: by time seen times peak, then peak, then the earlier one."""
        # Rounded, so that differences of times do not decide by their last digit.
        return (round(self.seen_s * self.peak_probability, 6), self.peak_probability, -self.id)


def read_document(path: Path) -> dict[str, Any] | None:
    """Read ``report.json``; None where it is missing.

    Raises:
        BadInputError: it cannot be read or is damaged.
    """
    try:
        return parse_names(read_file(path, _DOCUMENT_MAX_BYTES), _DOCUMENT_MAX_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, MalformedError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error


class Lines:
    """The valid lines of a file of JSON lines, in its order, one at a time.

    Args:
        path: the file.
        convert: makes a value of a line's JSON; ``KeyError``, ``TypeError`` and ``ValueError`` mean that the
            line is damaged.

    Attributes:
        skipped: number of damaged lines so far; the end of an interrupted run's file is one.
    """

    def __init__(self, path: Path, convert: Callable[[dict[str, Any]], Any]) -> None:
        self._path, self._convert = path, convert
        self.skipped = 0

    def __iter__(self) -> Iterator[Any]:
        try:
            with io.BufferedReader(open_regular(self._path)) as file:
                while line := file.readline(ROW_MAX_BYTES + 1):
                    if not line.strip():
                        continue
                    try:
                        value = parse_json(line, ROW_MAX_BYTES)
                        if not isinstance(value, dict):
                            raise TypeError("not an object")
                        made = self._convert(value)
                    except (KeyError, TypeError, ValueError):
                        self.skipped += 1
                        continue
                    yield made
        except OSError as error:
            raise BadInputError(f"{self._path} cannot be read: {error.strerror or error}") from error


def to_row(values: dict[str, Any]) -> Row:
    """Check a row of ``frames.jsonl`` of a video.

    Raises:
        KeyError, TypeError, ValueError: it is damaged, or is not of a video.
    """
    time_s = _time(values["pts_s"])
    events = tuple(str(event["kind"]) for event in values.get("lesion_events", ()))
    if not _of(bool, values["segmented"]):
        return Row(time_s, values, None, None, events)
    count = len(_of(list, values["boxes"]))
    height_px, width_px = (_of(int, side) for side in values["frame_hw"])
    if not (0 < height_px <= _SIDE_MAX_PX and 0 < width_px <= _SIDE_MAX_PX):
        raise ValueError("its frame has no sensible size")
    for name, kinds in _PER_BOX.items():
        if name in _OPTIONAL and name not in values:
            continue
        if len(_of(list, values[name])) != count or any(type(each) not in kinds for each in values[name]):
            raise ValueError(f"{name} is not one per box")
    areas_px = values["box_areas_px"]
    if min(areas_px, default=0) < 0 or sum(areas_px) > height_px * width_px:
        raise ValueError("its findings do not fit into its frame")
    poor = values.get("poor")
    return Row(time_s, values, count > 0, None if poor is None else _of(str, poor), events)


def to_lesion(values: dict[str, Any]) -> StoredLesion:
    """Check a row of ``lesions.jsonl``.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    known = {name: values[name] for name in StoredLesion.__dataclass_fields__ if name in values}
    known["class_index"] = values.get("class")
    if isinstance(still := values.get("still"), dict):
        known["still"] = {name: still[name] for name in ("pts_s", "image", "marked")}
    lesion: StoredLesion = from_plain(StoredLesion, known, "lesion")
    times = [time_s for span in lesion.spans for time_s in span]
    if lesion.id < 1 or [_time(time_s) for time_s in times] != sorted(times):
        raise ValueError("its times are not in order")
    if lesion.gaps_left_out_s < 0 or round(lesion.seen_s, 3) < 0:
        raise ValueError("its gaps are longer than itself")
    if not 0 <= lesion.peak_probability <= 1:
        raise ValueError("its peak is not a probability")
    if lesion.still is not None and (lesion.still.image, lesion.still.marked) != still_names(lesion.id):
        raise ValueError("its still has another name")
    return lesion


def read_still(folder: Path, name: str) -> bytes | None:
    """Read a still; None where it is missing, too large, a link, or not a JPEG file.

    Args:
        folder: folder of the run.
        name: name of the file, relative to it.
    """
    path = folder / name
    if path.is_symlink() or path.parent.is_symlink():
        return None
    try:
        data = read_file(path, STILL_MAX_BYTES)
    except (OSError, MalformedError):
        return None
    return data if data.startswith(_JPEG) else None


def _of(kind: type[T], value: Any) -> T:
    """Check the exact type of a value: ``from_plain`` takes a third of a millisecond for a row."""
    if type(value) is not kind:
        raise TypeError(f"{value!r:.80} is not of type {kind.__name__}")
    return value


def _time(value: Any) -> float:
    """Check a time in seconds."""
    if type(value) not in (float, int) or not abs(value) <= _LATEST_S:
        raise ValueError(f"{value!r:.80} is not a time")
    return float(value)
