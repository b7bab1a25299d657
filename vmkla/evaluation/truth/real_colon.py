"""REAL-Colon: whole colonoscopies as frames, and a VOC XML file for each with the lesions' ``unique_id``."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from xml.etree import ElementTree

from vmkla.errors import BadInputError
from vmkla.evaluation.truth.records import (
    AnnotatedRecording,
    BoxShape,
    FrameTruth,
    ShapeTruth,
    TruthRules,
    check_frames,
    check_rising,
    checked_box,
    numbers_of,
    stem_of,
)
from vmkla.files import read_regular

_FRAMES, _ANNOTATIONS, _VIDEOS = "_frames", "_annotations", "video_info.csv"
_XML_MAX_BYTES, _TABLE_MAX_BYTES = 1 << 20, 1 << 24


class _DoctypeError(Exception):
    """A document has a declaration of its type, the only place where entities are declared."""


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Builds elements; the parser calls it, so a declaration is found in any encoding."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        """Reject the declaration before its entities are read."""
        raise _DoctypeError(name)


def find_recordings(root: Path, rules: TruthRules) -> list[AnnotatedRecording]:
    """Read every pair of folders ``SSS-VVV_frames`` and ``SSS-VVV_annotations``.

    The number at the end of a frame's name is its position in the procedure, and ``video_info.csv`` states
    the frames a second.

    Raises:
        BadInputError: a folder, a frame or an annotation is missing, or an XML file cannot be read.
        UsageError: frames a second are missing, or stated twice.
    Source: Biffi et al., REAL-Colon, Scientific Data 11, 2024; its repository's README.
    """
    suffixed = {
        suffix: {
            child.name.removesuffix(suffix): child
            for child in sorted(root.iterdir())
            if child.is_dir() and child.name.endswith(suffix)
        }
        for suffix in (_FRAMES, _ANNOTATIONS)
    }
    frames, annotations = suffixed[_FRAMES], suffixed[_ANNOTATIONS]
    if not frames or not annotations:
        return []
    if alone := sorted(frames.keys() ^ annotations.keys()):
        missing = _ANNOTATIONS if alone[0] in frames else _FRAMES
        raise BadInputError(f"{root}: there is no folder {alone[0]}{missing}")
    rates = _rates(root / _VIDEOS)
    return [_recording(name, frames[name], annotations[name], rates, rules) for name in frames]


def _recording(
    name: str, frames: Path, annotations: Path, rates: dict[str, float], rules: TruthRules
) -> AnnotatedRecording:
    source = rules.images(frames)
    stems = [stem_of(item.name) for item in source.items]
    files = {path.stem: path for path in sorted(annotations.iterdir()) if path.suffix.lower() == ".xml"}
    check_frames(str(frames), files, stems, every=True)
    numbers = numbers_of(stems)
    if numbers is None:
        raise BadInputError(f"{frames}: a frame's name does not end in its number, as {name}_123.jpg does")
    check_rising(str(frames), numbers, stems)
    if rates and name not in rates:  # --fps would contradict the others
        raise BadInputError(
            f"{frames.parent / _VIDEOS} has no row of {name}", hint="Add its row, with its frames a second."
        )
    rate = rules.rate(name, rates.get(name))
    truth: dict[int, FrameTruth] = {}
    for index, stem in enumerate(stems):
        seen = _read(files[stem])
        if seen.shapes:
            truth[index] = seen
    times_s = tuple(number / rate for number in numbers)
    return AnnotatedRecording(name, name, source, truth, times_s, 1 / rate)


def _read(path: Path) -> ShapeTruth:
    """Read the lesions of one frame."""
    data = read_regular(path, limit_bytes=_XML_MAX_BYTES)
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_WithoutDoctype()))
    except _DoctypeError as error:
        raise BadInputError(
            f"{path} declares entities, which annotations do not need and may be harmful"
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInputError(f"{path} is not a VOC annotation: {error}") from error
    height, width = (_number(path, root, f"size/{side}") for side in ("height", "width"))
    shapes = []
    for found in root.iterfind("object"):
        identity = (found.findtext("unique_id") or "").strip()
        if not identity:
            raise BadInputError(f"{path}: an object has no unique_id, so its lesion is unknown")
        left, top, right, bottom = (
            _number(path, found, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
        )
        shapes.append(BoxShape(identity, checked_box(str(path), (left, top, right - left, bottom - top))))
    return ShapeTruth(str(path), tuple(shapes), (int(height), int(width)))


def _number(path: Path, element: ElementTree.Element, name: str) -> float:
    text = element.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInputError(f"{path}: {name} is {text!r}, expected a number")
    return value


def _rates(path: Path) -> dict[str, float]:
    """Return the frames a second by the video's name; empty without the table."""
    if not path.is_file():
        return {}
    data = read_regular(path, limit_bytes=_TABLE_MAX_BYTES)
    try:
        rows = csv.DictReader(data.decode("utf-8-sig").splitlines())
        return {row["unique_video_name"]: float(row["fps"]) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInputError(
            f"{path} has no columns unique_video_name and fps that can be read: {error!r}"
        ) from error
