"""Write CVAT for images 1.1: masks as run lengths. CVAT imports it into tasks of images and of videos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from vmkla.files import written_whole
from vmkla.procedures.annotations.records import AnnotatedFrame, AnnotatedRegion

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fits_xml(text: str) -> bool:
    """Report whether XML 1.0 can hold a text: no control characters, and no bytes that are not UTF-8."""
    return _NOT_IN_XML.search(text) is None


def write_cvat(
    path: Path, frames: Iterator[AnnotatedFrame], labels: Mapping[int, str], name: str, count: int
) -> None:
    """Write an annotation file of CVAT, frame by frame, so that its size does not count in memory.

    Masks are shapes of single frames, also of a video: of a track of masks CVAT's importer keeps only the
    first; ``write_cvat_tracks`` writes tracks of polygons. A shape has the attributes
    ``probability`` and, with a lesion's number, ``track_id``; CVAT keeps those that the task's labels
    declare. ``id`` of an image is the number of the frame in the source.

    Args:
        path: the file.
        frames: the frames, in order.
        labels: name of each class.
        name: name of the source.
        count: number of frames.
    Raises:
        BadInputError: the file cannot be written.
    Source: CVAT's documentation, XML annotation format 1.1.
    """
    with written_whole(path) as file:
        file.write(head_xml(labels, name, count).encode())
        for frame in frames:
            height_px, width_px = frame.frame_hw
            file.write(
                f'  <image id="{frame.index}" name={quoteattr(frame.name)} width="{width_px}" '
                f'height="{height_px}">\n'.encode()
            )
            for region in frame.regions:
                file.write(_mask(region, labels[region.class_index]).encode())
            file.write(b"  </image>\n")
        file.write(b"</annotations>\n")


def head_xml(
    labels: Mapping[int, str], name: str, count: int, *, frame_hw: tuple[int, int] | None = None
) -> str:
    """Return the beginning of a file, up to its first image or track.

    Args:
        labels: name of each class.
        name: name of the source.
        count: number of frames.
        frame_hw: height and width of a video's frames, for a file of tracks; None for one of images.
    """
    attributes = "".join(
        f"<attribute><name>{attribute}</name><mutable>True</mutable><input_type>number</input_type>"
        "<default_value>0</default_value><values></values></attribute>"
        for attribute in ("probability", "track_id")
    )
    listed = "".join(
        f"        <label><name>{escape(label)}</name><attributes>{attributes}</attributes></label>\n"
        for label in labels.values()
    )
    mode, size = "annotation", ""
    if frame_hw is not None:
        height_px, width_px = frame_hw
        mode = "interpolation"
        size = f"      <original_size><width>{width_px}</width><height>{height_px}</height></original_size>\n"
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n'
        f"    <task>\n      <name>{escape(name)}</name>\n      <size>{count}</size>\n"
        f"      <mode>{mode}</mode>\n      <labels>\n{listed}      </labels>\n{size}    </task>\n  </meta>\n"
    )


def _mask(region: AnnotatedRegion, label: str) -> str:
    x, y, w, h = region.box
    runs = ", ".join(map(str, region.counts))
    return (
        f'    <mask label={quoteattr(label)} source="auto" occluded="0" rle="{runs}" left="{x}" top="{y}" '
        f'width="{w}" height="{h}" z_order="0">\n{attributes_xml(region)}    </mask>\n'
    )


def attributes_xml(region: AnnotatedRegion) -> str:
    """Return the attributes of a shape."""
    values = {"probability": region.probability, "track_id": region.track_id}
    return "".join(
        f'      <attribute name="{name}">{value}</attribute>\n'
        for name, value in values.items()
        if value is not None
    )
