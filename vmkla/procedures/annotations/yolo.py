"""Write YOLO segmentation labels: one text file for each frame, one polygon for each finding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from vmkla.files import write_whole
from vmkla.procedures.annotations.polygons import polygon
from vmkla.procedures.annotations.records import AnnotatedFrame, AnnotatedRegion

LABELS, IMAGES, DATA = "labels", "images", "data.yaml"


def write_yolo(folder: Path, frames: Iterator[AnnotatedFrame], labels: Mapping[int, str]) -> None:
    """Write ``labels/<name>.txt`` for each frame, and ``data.yaml``.

    A frame without a finding has an empty file, so that it trains as a negative. The format has no place for
    a probability or a lesion's number. The pictures belong beside ``labels``, in ``images``.

    Args:
        folder: the folder.
        frames: the frames.
        labels: name of each class; the first is class 0 of the files.
    Raises:
        BadInputError: a file cannot be written.
    Source: Ultralytics' documentation, instance segmentation datasets.
    """
    numbers = {index: number for number, index in enumerate(labels)}
    for frame in frames:
        lines = [
            f"{numbers[region.class_index]} {_normalised(region, frame.frame_hw)}\n"
            for region in frame.regions
        ]
        write_whole(folder / label_path(frame.stem), "".join(lines).encode(), durable=False)
    names = "".join(f"  {numbers[index]}: {json.dumps(label)}\n" for index, label in labels.items())
    note = "# Split the images before a training: both names are the same set."
    text = f"{note}\ntrain: {IMAGES}\nval: {IMAGES}\nnames:\n{names}"
    write_whole(folder / DATA, text.encode())


def label_path(stem: str) -> str:
    """Return the path of a frame's labels in the folder."""
    return f"{LABELS}/{stem}.txt"


def _normalised(region: AnnotatedRegion, frame_hw: tuple[int, int]) -> str:
    """Return the polygon as shares of the frame's sides, at the middle of pixels: rounding cannot move it."""
    places = (polygon(region.pixels()) + (region.box.x, region.box.y) + 0.5) / (frame_hw[1], frame_hw[0])
    return " ".join(f"{value:.6f}" for value in places.ravel())
