"""Write CVAT for video 1.1: one track of polygons for each lesion of a video."""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.sax.saxutils import quoteattr

from vmkla.files import make_folder, output_errors, written_whole
from vmkla.procedures.annotations.cvat import attributes_xml, head_xml
from vmkla.procedures.annotations.polygons import polygon
from vmkla.procedures.annotations.records import AnnotatedFrame, AnnotatedRegion

_Key = tuple[int, int | None, int]
"""Class, number of the lesion, and which of its pieces in a frame; without a number the piece of its own."""


@dataclass
class _Track:
    """A track, whose shapes are in a temporary file.

    Attributes:
        label: name of its class.
        places: offset and length of each shape in that file, by turns.
        last: outline and attributes of the latest shape, as XML.
    """

    label: str
    places: array[int] = field(default_factory=lambda: array("q"))
    last: tuple[str, str] = ("", "")


def write_cvat_tracks(
    path: Path, frames: Iterator[AnnotatedFrame], labels: Mapping[int, str], name: str, length: int
) -> None:
    """Write the lesions of a video as tracks; CVAT imports them into the task of that video.

    A track has a shape in every frame that shows the lesion, and ends with one that is ``outside`` in the
    frame after it, so that CVAT draws nothing in gaps. A lesion that is in pieces has a track for each, and
    one of several classes a track for each. ``id`` is the lesion's number, which the largest piece of its
    first class has in each frame; the other tracks have numbers above all of them. Outlines run
    through the middle of the outermost pixels.

    Args:
        path: the file.
        frames: the segmented frames, in order.
        labels: name of each class.
        name: name of the source.
        length: number of the video's frames, as far as it is known.
    Raises:
        BadInputError: the file cannot be written.
    Source: CVAT's documentation, XML annotation format 1.1.
    """
    with output_errors(path):
        make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent) as shapes:
            tracks, frame_hw = _sort(frames, labels, shapes, length)
            with written_whole(path) as file:
                file.write(head_xml(labels, name, length, frame_hw=frame_hw).encode())
                for number, track in tracks.items():
                    label = quoteattr(track.label)
                    file.write(f'  <track id="{number}" label={label} source="auto">\n'.encode())
                    for offset, size in zip(track.places[::2], track.places[1::2], strict=True):
                        shapes.seek(offset)
                        file.write(shapes.read(size))
                    file.write(b"  </track>\n")
                file.write(b"</annotations>\n")


def _sort(
    frames: Iterator[AnnotatedFrame], labels: Mapping[int, str], shapes: IO[bytes], length: int
) -> tuple[dict[int, _Track], tuple[int, int]]:
    """Write the shapes of each frame.

    Returns:
        The tracks that they belong to by number, in the order of appearance, and the size of the first frame.
    """
    tracks: dict[_Key, _Track] = {}
    visible: dict[_Key, _Track] = {}
    frame_hw, last, unnumbered = (0, 0), -1, 0
    for frame in frames:
        frame_hw, last = (frame_hw if last >= 0 else frame.frame_hw), frame.index
        seen: dict[_Key, _Track] = {}
        for region in frame.regions:
            piece = sum(key[:2] == (region.class_index, region.track_id) for key in seen)
            if region.track_id is None:
                unnumbered += 1
                piece = unnumbered
            key = region.class_index, region.track_id, piece
            track = seen[key] = tracks.setdefault(key, _Track(labels[region.class_index]))
            track.last = _outline(region), attributes_xml(region)
            _add(track, shapes, frame.index, outside=False)
        for key, track in visible.items():
            if key not in seen:
                _add(track, shapes, frame.index, outside=True)
        visible = seen
    if last + 1 < length:
        for track in visible.values():
            _add(track, shapes, last + 1, outside=True)
    return _numbered(tracks), frame_hw


def _numbered(tracks: Mapping[_Key, _Track]) -> dict[int, _Track]:
    others = itertools.count(1 + max((lesion or 0 for _, lesion, _ in tracks), default=0))
    numbered: dict[int, _Track] = {}
    for (_, lesion, _), track in tracks.items():
        own = lesion is not None and lesion not in numbered
        numbered[lesion if own and lesion is not None else next(others)] = track
    return numbered


def _add(track: _Track, shapes: IO[bytes], index: int, *, outside: bool) -> None:
    outline, attributes = track.last
    text = (
        f'    <polygon frame="{index}" keyframe="1" outside="{int(outside)}" occluded="0" points="{outline}" '
        f'z_order="0">\n{attributes}    </polygon>\n'
    ).encode()
    track.places.extend((shapes.tell(), len(text)))
    shapes.write(text)


def _outline(region: AnnotatedRegion) -> str:
    places = polygon(region.pixels()) + (region.box.x, region.box.y) + 0.5
    return ";".join(f"{x:.1f},{y:.1f}" for x, y in places.tolist())
