"""Read the findings that a batch stored of recordings, so that no network need run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vmkla.archive.identity import KnownDigests, digest_images, source_digest, source_stamp
from vmkla.archive.layout import find_batch, read_settings
from vmkla.archive.records import PieceRecord, Records
from vmkla.archive.work import Entry
from vmkla.errors import BadInputError, UsageError
from vmkla.evaluation.truth.records import AnnotatedRecording
from vmkla.files import file_sha256
from vmkla.plain_values import from_plain
from vmkla.procedures.files import REPORT, ROWS
from vmkla.procedures.report.stored import Lines, read_document
from vmkla.segment.findings import Findings, Region
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.media.frames import Frame
from vmkla.video.media.images import read_image
from vmkla.video.media.sources import ImageSource

_NAMED = 5


class StoredFindings:
    """The findings of recordings as a batch stored them, given like those of a network.

    Args:
        path: folder of the batch.
        recordings: the recordings; each is found by the content of its frames.
    Raises:
        BadInputError: it is not a batch, or has no result of a recording.
        UsageError: the batch has no masks, skipped frames, or has several classes.
    """

    def __init__(self, path: Path, recordings: Sequence[AnnotatedRecording]) -> None:
        folder = find_batch(path)
        self._path, self._settings = path, read_settings(folder)
        again = "Run the batch again into another folder: vmkla batch ... --save-masks --out DIR"
        if not self._settings.get("save_masks"):
            raise UsageError(f"the batch in {path} has no masks, which decide what is found", hint=again)
        if (stride := self._settings.get("stride")) != 1:
            raise UsageError(f"the batch in {path} segmented one frame in {stride} only", hint=again)
        known = KnownDigests(folder.hashes, folder.owner)
        published = {record.source_sha256: record for record in Records(folder).all() if record.folder}
        self._pieces: dict[str, PieceRecord] = {}
        missing = []
        for recording in recordings:
            digests = _digests(recording, known)
            record = next((published[digest] for digest in digests if digest in published), None)
            if record is None:
                missing.append(recording.name)
            else:
                self._pieces[recording.name] = record
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise BadInputError(
                f"the batch in {path} has no result of {len(missing)} of {len(recordings)} recordings: "
                f"{', '.join(missing[:_NAMED])}{more}",
                hint="Add them with the command of the batch, or see its status.jsonl.",
            )
        self._reports = {
            name: read_document(path / str(record.folder) / REPORT) or {}
            for name, record in self._pieces.items()
        }
        classes = (self.describe()["model"] or {}).get("class_names", ())
        if len(classes) != 1:
            raise UsageError(
                f"the batch in {path} has {len(classes)} classes, and lesions of recordings have one"
            )

    def describe(self) -> dict[str, Any]:
        """Return operating point, field of view, model and runtime, for the report of an evaluation."""
        report = next(iter(self._reports.values()))
        names = ("threshold", "peak", "min_fraction")
        point = from_plain(OperatingPoint, {name: self._settings.get(name) for name in names}, "settings")
        roi = self._settings.get("roi")
        return {
            "operating_point": point.to_dict(),
            "operating_point_from": "the batch's settings",
            "roi": ",".join(map(str, roi)) if isinstance(roi, list) else roi,
            "model": report.get("model"),
            "runtime": report.get("runtime"),
        }

    def warnings(self) -> list[str]:
        """Return what the reports of the recordings warn of that concerns the model, and their views."""
        found = [
            warning
            for report in self._reports.values()
            for warning in report.get("warnings", ())
            if str(warning).startswith("the model")
        ]
        images = sum(record.facts.get("kind") == "images" for record in self._pieces.values())
        if images and self._settings.get("roi") == "auto":
            found.append(f"{images} recordings are images, and each image had its own field of view")
        return list(dict.fromkeys(map(str, found)))

    def finder(self, recording: AnnotatedRecording) -> Callable[[Frame], Findings]:
        """Return what gives the findings of a recording's frames, in their order.

        Its function raises ``BadInputError`` where a row or a mask is missing, damaged, or of another frame.
        """
        folder = self._path / str(self._pieces[recording.name].folder)
        rows: Iterator[dict[str, Any]] = iter(Lines(folder / ROWS, _checked))

        def find(frame: Frame) -> Findings:
            row = next((row for row in rows if row["index"] >= frame.index), None)
            if row is None or row["index"] != frame.index:
                raise BadInputError(f"{folder / ROWS} has no row of frame {frame.index}", hint=_DAMAGED)
            return _findings(folder, row, frame)

        return find


_DAMAGED = "The results are damaged. Remove this folder, and run the command of the batch again."


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """Check the row of a segmented frame of one class.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    count = len(from_plain(tuple[tuple[int, int, int, int], ...], row["boxes"], "boxes"))
    areas_px = from_plain(tuple[int, ...], row["box_areas_px"], "box_areas_px")
    values = (*row["box_probabilities"], *row["box_peaks"])
    if type(row["index"]) is not int or type(row["mask"]) is not str:
        raise TypeError("it has no index or no mask")
    if len(areas_px) != count or len(values) != 2 * count:
        raise ValueError("it has not one value for each box")
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise ValueError("a probability is not 0 to 1")
    return row


def _findings(folder: Path, row: dict[str, Any], frame: Frame) -> Findings:
    """Return the findings of a frame from its row and its mask."""
    frame_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
    mask = np.zeros(frame_hw, np.uint8)
    if row["boxes"]:
        mask = (read_image(folder / row["mask"])[..., 0] > 0).view(np.uint8)
    if mask.shape != frame_hw or cv2.countNonZero(mask) != sum(row["box_areas_px"]):
        raise BadInputError(
            f"{folder}: the mask of frame {frame.index} does not fit its row or the frame", hint=_DAMAGED
        )
    each = zip(row["boxes"], row["box_areas_px"], row["box_probabilities"], row["box_peaks"], strict=True)
    regions = tuple(
        Region(Rect(*box), area_px, 1, float(probability), float(peak))
        for box, area_px, probability, peak in each
    )
    return Findings(mask, regions, max((region.probability for region in regions), default=0.0))


def _digests(recording: AnnotatedRecording, known: KnownDigests) -> list[str]:
    """Return the digests that a batch may know a recording by; a video that it hashed is not read again."""
    source = recording.source
    if not isinstance(source, ImageSource):
        entry = Entry(recording.name, source.path, "video")
        hashed = known.get(source_stamp(entry))
        return [source_digest(entry, lambda count: None) if hashed is None else hashed.digest]
    sha256s = [file_sha256(item.path) for item in source.items]
    names = [item.name for item in source.items]
    common = os.path.commonpath([os.path.dirname(name) for name in names])
    below = [os.path.relpath(name, common or ".") for name in names]
    return [digest_images(zip(each, sha256s, strict=True)) for each in (names, below)]
