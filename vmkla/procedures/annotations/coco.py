"""Write COCO instances: masks as compressed run lengths, one entry for each segmented frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vmkla.files import written_whole
from vmkla.procedures.annotations.records import AnnotatedFrame, AnnotatedRegion, run_lengths

Frames = Callable[[], Iterator[AnnotatedFrame]]


def write_coco(path: Path, frames: Frames, labels: Mapping[int, str], name: str) -> None:
    """Write a COCO instances file, entry by entry, so that its size does not count in memory.

    An annotation has ``score``, its probability, and with a lesion's number ``attributes.track_id``, as CVAT
    and Datumaro write and read it.

    Args:
        path: the file.
        frames: called for each of two passes over the frames.
        labels: name of each class.
        name: name of the source.
    Raises:
        BadInputError: the file cannot be written.
    Source: Lin et al., Microsoft COCO, 2014; the format's page, cocodataset.org/#format-data.
    """
    head = {
        "info": {"description": name, "version": "1.0"},
        "licenses": [],
        "categories": [{"id": index, "name": label, "supercategory": ""} for index, label in labels.items()],
    }
    with written_whole(path) as file:
        file.write(json.dumps(head)[:-1].encode())
        for key, entries in (("images", _images(frames())), ("annotations", _annotations(frames()))):
            file.write(f', "{key}": ['.encode())
            for number, entry in enumerate(entries):
                file.write((",\n" if number else "\n").encode() + json.dumps(entry).encode())
            file.write(b"]")
        file.write(b"}\n")


def _images(frames: Iterator[AnnotatedFrame]) -> Iterator[dict[str, Any]]:
    for frame in frames:
        height_px, width_px = frame.frame_hw
        yield {"id": frame.index + 1, "file_name": frame.name, "width": width_px, "height": height_px}


def _annotations(frames: Iterator[AnnotatedFrame]) -> Iterator[dict[str, Any]]:
    number = 0
    for frame in frames:
        for region in frame.regions:
            number += 1
            entry: dict[str, Any] = {
                "id": number,
                "image_id": frame.index + 1,
                "category_id": region.class_index,
                "bbox": list(region.box),
                "area": sum(region.counts[1::2]),
                "iscrowd": 0,
                "score": region.probability,
                "segmentation": {
                    "size": list(frame.frame_hw),
                    "counts": compress(frame_counts(region, frame.frame_hw)),
                },
            }
            if region.track_id is not None:
                entry["attributes"] = {"track_id": region.track_id}
            yield entry


def frame_counts(region: AnnotatedRegion, frame_hw: tuple[int, int]) -> list[int]:
    """Return the run lengths of a region over the whole frame, column by column, as COCO counts them."""
    height_px, width_px = frame_hw
    x, y, w, h = region.box
    columns = np.zeros((w, height_px), np.uint8)
    columns[:, y : y + h] = region.pixels().T
    counts = run_lengths(columns.ravel())
    counts[0] += x * height_px
    after = (width_px - x - w) * height_px
    if len(counts) % 2:  # the last run is outside
        counts[-1] += after
    elif after:
        counts.append(after)
    return counts


def compress(counts: list[int]) -> str:
    """Return COCO's text for run lengths: five bits a character, and from the fourth run on the difference to
    the run two before it.
    """
    text = []
    for position, count in enumerate(counts):
        value = count - counts[position - 2] if position > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + (0 if done else 32)))
            if done:
                break
    return "".join(text)


def decompress(text: str) -> list[int]:
    """Return the run lengths of a text that ``compress`` writes.

    Raises:
        ValueError: the text is not one.
    """
    counts: list[int] = []
    value = shift = 0
    for sign in text:
        code = ord(sign) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"{text[:20]!r} is not COCO's text for run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError(f"{text[:20]!r} ends within a number")
    return counts
