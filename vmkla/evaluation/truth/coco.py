"""COCO instances of videos: frames by ``video_id``, lesions by ``track_id`` or ``instance_id``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.bounded import MalformedError, parse_json
from vmkla.errors import BadInputError
from vmkla.evaluation.truth.masks import FRAMES, mark_of
from vmkla.evaluation.truth.records import (
    AnnotatedRecording,
    BoxShape,
    FrameTruth,
    Mark,
    Shape,
    ShapeTruth,
    Size,
    TruthRules,
    check_frames,
    check_rising,
    checked_box,
    frame_numbers,
    stem_of,
)
from vmkla.files import read_regular, why_not_regular
from vmkla.procedures.annotations.coco import decompress
from vmkla.video.media.sources import ImageItem, ImageSource

_FOLDERS, _SUFFIX, _MAX_BYTES = ("", "annotations"), ".json", 1 << 30
_TRACK_KEYS, _NUMBER_KEYS = ("track_id", "instance_id"), ("frame_index", "frame_id")
"""Keys of a lesion's identity and of a frame's number: of TAO, and of CocoVID (MMTracking)."""

_FARTHEST_PX = 1 << 15
"""Farthest corner of a polygon: OpenCV's arithmetic overflows beyond."""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class PolygonShape:
    """A lesion as polygons: x and y in turn, px."""

    lesion: str
    polygons: tuple[tuple[float, ...], ...]

    def mark(self, name: str, frame_hw: Size) -> Mark:
        """Return the pixels of all polygons.

        Raises:
            BadInputError: they cover no pixel of the frame.
        """
        pixels = np.zeros(frame_hw, np.uint8)
        for polygon in self.polygons:  # in one call, overlaps would be holes
            points = np.clip(np.rint(np.reshape(polygon, (-1, 2))), -_FARTHEST_PX, _FARTHEST_PX)
            cv2.fillPoly(pixels, [points.astype(np.int32)], 1)
        return _covered(self.lesion, pixels.astype(np.bool_), name)


@dataclass(frozen=True)
class RunShape:
    """A lesion as run lengths, column by column, alternately outside and inside it."""

    lesion: str
    counts: tuple[int, ...]
    size_hw: Size

    def mark(self, name: str, frame_hw: Size) -> Mark:
        """Return its pixels.

        Raises:
            BadInputError: the runs are of a frame of another size, or cover no pixel.
        """
        height_px, width_px = frame_hw
        if self.size_hw != frame_hw or sum(self.counts) != height_px * width_px:
            raise BadInputError(
                f"{name}: the mask of lesion {self.lesion} is of a frame of {self.size_hw} and has "
                f"{sum(self.counts)} px, and the frame is {frame_hw} (height, width)"
            )
        inside = np.arange(len(self.counts)) % 2 == 1
        return _covered(self.lesion, np.repeat(inside, self.counts).reshape(width_px, height_px).T, name)


def find_recordings(root: Path, rules: TruthRules) -> list[AnnotatedRecording]:
    """Read the recordings of every COCO file of a folder, or of its folder ``annotations``.

    A file without ``videos`` is one recording, as CVAT exports one. Every annotation is a lesion, whatever
    its category; its identity is ``track_id`` or ``instance_id``, of its own or among its ``attributes``. An
    image without an annotation shows no lesion. Images lie in the folder itself, in ``images`` or,
    of ``instances_default.json``, in ``images/default``.

    Raises:
        BadInputError: a file is not COCO, an annotation has no identity, or frames are missing.
        UsageError: frames a second are missing, or stated twice.
    Source: Lin et al., Microsoft COCO, 2014; Dave et al., TAO, 2020; MMTracking's documentation, CocoVID.
    """
    files = [
        path
        for folder in _FOLDERS
        if (root / folder).is_dir()
        for path in sorted((root / folder).iterdir())
        if path.suffix.lower() == _SUFFIX and path.is_file()
    ]
    documents = ((path, _document(path)) for path in files)
    return [
        recording
        for path, document in documents
        if "images" in document
        for recording in _CocoFile(root, path, document, rules).recordings()
    ]


def _document(path: Path) -> Mapping[str, Any]:
    """Read a JSON file; empty where it does not hold an object."""
    try:
        document = parse_json(read_regular(path, limit_bytes=_MAX_BYTES), _MAX_BYTES)
    except MalformedError as error:
        raise BadInputError(f"{path} is not COCO: {error}") from error
    return document if isinstance(document, dict) else {}


class _CocoFile:
    """One file and the frames beside it."""

    def __init__(self, root: Path, path: Path, document: Mapping[str, Any], rules: TruthRules) -> None:
        self._root, self._path, self._rules = root, path, rules
        self._videos, self._images, self._annotations = (
            self._entries(document, key) for key in ("videos", "images", "annotations")
        )
        if not self._images:
            raise BadInputError(f"{path} is not COCO: it lists no images")

    def recordings(self) -> list[AnnotatedRecording]:
        """Return the recordings of the file."""
        by_video: dict[object, list[Entry]] = {}
        for image in self._images:
            video_id = self._value(image, ("video_id",)) if self._videos else None
            by_video.setdefault(video_id, []).append(image)
        of_image = self._shapes()
        if not self._videos:
            return [self._recording({"name": self._path.stem}, self._images, of_image)]
        known = {self._value(video, ("id",)): video for video in self._videos}
        if len(known) < len(self._videos):
            raise BadInputError(f"{self._path}: two videos have one id")
        if unknown := [video for video in by_video if video not in known]:
            raise BadInputError(f"{self._path}: images have the video_id {unknown[0]!r}, which is not listed")
        if empty := [video for video in known if video not in by_video]:
            raise BadInputError(f"{self._path}: video {empty[0]!r} has no images")
        return [self._recording(known[video], images, of_image) for video, images in by_video.items()]

    def _recording(
        self, video: Entry, images: Sequence[Entry], of_image: Mapping[object, tuple[Shape, ...]]
    ) -> AnnotatedRecording:
        name = str(video.get("name") or video.get("file_name") or video.get("id"))
        entries = {str(self._value(image, ("file_name",))): image for image in images}
        if len(entries) < len(images):
            raise BadInputError(f"{self._path}, {name}: two images have one file_name")
        source = self._source(name, entries)
        in_order = [entries[item.name] for item in source.items]
        stems = [stem_of(item.name) for item in source.items]
        rate = self._rules.rate(name, self._rate(video))
        numbers = self._numbers(name, in_order, stems)
        truth: dict[int, FrameTruth] = {}
        for index, image in enumerate(in_order):
            shapes = of_image.get(self._value(image, ("id",)), ())
            where = f"{self._path}, {image['file_name']}"
            truth[index] = ShapeTruth(where, shapes, self._size(image))
        times_s = tuple((number - numbers[0]) / rate for number in numbers)
        return AnnotatedRecording(name, name, source, truth, times_s, 1 / rate)

    def _source(self, name: str, entries: Mapping[str, Entry]) -> ImageSource:
        part = self._path.stem.removeprefix("instances_")
        folders = [self._root, *(self._root / folder for folder in FRAMES)]
        folders += [folder / part for folder in folders[1:]]
        there: dict[str, Path] = {}
        for file_name in entries:
            if Path(file_name).is_absolute() or ".." in Path(file_name).parts:
                raise BadInputError(f"{self._path}: the image {file_name!r} leaves the folder")
            found = next((folder / file_name for folder in folders if (folder / file_name).is_file()), None)
            if found is not None and not why_not_regular(found):
                there[file_name] = found
        check_frames(f"{self._path}, {name}", entries, there, every=False)
        items = [ImageItem(path, file_name) for file_name, path in there.items()]
        return ImageSource(self._root, items, max_megapixels=self._rules.max_megapixels)

    def _shapes(self) -> dict[object, tuple[Shape, ...]]:
        """Return the shapes of each image by its id."""
        known = {self._value(image, ("id",)) for image in self._images}
        if len(known) != len(self._images):
            raise BadInputError(f"{self._path}: two images have one id")
        shapes: dict[object, list[Shape]] = {}
        for annotation in self._annotations:
            image = self._value(annotation, ("image_id",))
            if image not in known:
                raise BadInputError(
                    f"{self._path}: an annotation is of image {image!r}, which is not listed",
                    hint="Give the file that was exported with these images.",
                )
            shapes.setdefault(image, []).append(self._shape(annotation))
        return {image: tuple(of) for image, of in shapes.items()}

    def _shape(self, annotation: Entry) -> Shape:
        where = f"{self._path}, annotation {annotation.get('id')}"
        if annotation.get("iscrowd") and not isinstance(annotation.get("segmentation"), dict):
            raise BadInputError(f"{where} is of a crowd (iscrowd), expected one lesion")
        attributes = annotation.get("attributes")
        values = {**(attributes if isinstance(attributes, dict) else {}), **annotation}
        lesion = str(self._value(values, _TRACK_KEYS, where))
        outline = annotation.get("segmentation")
        try:
            if isinstance(outline, dict):
                height, width = (int(side) for side in outline["size"])
                counts = outline["counts"]
                runs = decompress(counts) if isinstance(counts, str) else [int(count) for count in counts]
                if min(runs, default=0) < 0:
                    raise ValueError("a run is negative")
                return RunShape(lesion, tuple(runs), (height, width))
            if outline:
                polygons = tuple(tuple(float(value) for value in polygon) for polygon in outline)
                if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
                    raise ValueError("a polygon has fewer than three points")
                return PolygonShape(lesion, polygons)
            return BoxShape(lesion, checked_box(where, annotation["bbox"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(f"{where} has no segmentation or bbox that can be read: {error!r}") from error

    def _size(self, image: Entry) -> Size | None:
        sides = image.get("height"), image.get("width")
        if sides == (None, None):
            return None
        if not all(isinstance(side, int) for side in sides):
            raise BadInputError(f"{self._path}: the size of an image is {sides}, expected whole numbers")
        return sides  # type: ignore[return-value]

    def _numbers(self, name: str, images: Sequence[Entry], stems: Sequence[str]) -> list[int]:
        """Return the numbers of the frames: those stated, or those of their names."""
        where = f"{self._path}, {name}"
        keys = [key for key in _NUMBER_KEYS if all(isinstance(image.get(key), int) for image in images)]
        if not keys:
            return frame_numbers(where, stems)
        numbers = [int(image[keys[0]]) for image in images]
        check_rising(where, numbers, stems)
        return numbers

    def _rate(self, video: Entry) -> float | None:
        rate = video.get("fps")
        if rate is not None and not isinstance(rate, int | float):
            raise BadInputError(f"{self._path}: fps of a video is {rate!r}, expected a number")
        return rate

    def _entries(self, document: Mapping[str, Any], key: str) -> list[Entry]:
        entries = document.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadInputError(f"{self._path} is not COCO: it has no list {key!r}")
        return entries

    def _value(self, entry: Entry, keys: Iterable[str], where: str = "") -> Any:
        """Return the first of some keys that an entry has, a number or a text."""
        for key in keys:
            if isinstance(entry.get(key), int | str):
                return entry[key]
        raise BadInputError(f"{where or self._path}: an entry has no {' or '.join(keys)}")


def _covered(lesion: str, pixels: npt.NDArray[np.bool_], name: str) -> Mark:
    if not pixels.any():
        raise BadInputError(f"{name}: the mask of lesion {lesion} covers no pixel of the frame")
    return mark_of(lesion, pixels)
