"""CVAT's tracks: each lesion's pixels in each of its frames, gaps, pieces and the end of a run."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tests.procedures.annotations.test_formats import found
from vmkla.procedures.annotations.cvat_tracks import write_cvat_tracks
from vmkla.procedures.annotations.records import AnnotatedFrame, AnnotatedRegion, annotate
from vmkla.segment.preprocess import Rect

LABELS = {1: "polyp", 2: 'a "b" & c'}
HW = (40, 53)
Shapes = list[tuple[int, bool]]


def square(x: int, lesion: int | None, class_index: int = 1) -> AnnotatedRegion:
    return AnnotatedRegion(class_index, 0.5, Rect(x, 2, 4, 3), (0, 12), lesion)


def frame(index: int, *regions: AnnotatedRegion) -> AnnotatedFrame:
    return AnnotatedFrame(index, f"frame_{index:06d}.png", HW, regions)


def tracks_of(path: Path, frames: list[AnnotatedFrame], length: int) -> list[ElementTree.Element]:
    write_cvat_tracks(path, iter(frames), LABELS, "clip & more.mp4", length)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    root = ElementTree.parse(path).getroot()
    assert root.findtext("version") == "1.1" and root.findtext("meta/task/mode") == "interpolation"
    assert root.findtext("meta/task/size") == str(length)
    assert root.findtext("meta/task/name") == "clip & more.mp4"
    found = root.findall("track")
    assert len({track.attrib["id"] for track in found}) == len(found)
    return found


def shapes(track: ElementTree.Element) -> Shapes:
    assert all(shape.attrib["keyframe"] == "1" for shape in track)
    return [(int(shape.attrib["frame"]), shape.attrib["outside"] == "1") for shape in track]


def lesion_of(track: ElementTree.Element) -> set[str | None]:
    return {each.text for each in track.iter("attribute") if each.attrib["name"] == "track_id"}


def filled(shape: ElementTree.Element) -> npt.NDArray[np.uint8]:
    """The pixels of a polygon through the middle of its outermost pixels."""
    places = [[float(value) - 0.5 for value in pair.split(",")] for pair in shape.attrib["points"].split(";")]
    mask = np.zeros(HW, np.uint8)
    cv2.fillPoly(mask, [np.array(places).astype(np.int32)], 1)
    return mask


def test_gaps_pieces_and_the_end(tmp_path: Path) -> None:
    frames = [
        frame(0, square(1, 7)),
        frame(2, square(2, 7)),
        frame(4, square(30, 9)),
        frame(6, square(3, 7), square(30, 9), square(12, 7)),
        frame(8, square(4, 7)),
    ]
    first, second, piece = tracks_of(tmp_path / "tracks.xml", frames, 10)
    assert shapes(first) == [(0, False), (2, False), (4, True), (6, False), (8, False), (9, True)]
    assert shapes(second) == [(4, False), (6, False), (8, True)]
    assert shapes(piece) == [(6, False), (8, True)]
    assert [lesion_of(track) for track in (first, second, piece)] == [{"7"}, {"9"}, {"7"}]
    assert [track.attrib["id"] for track in (first, second, piece)] == ["7", "9", "10"]
    # A shape that ends a stretch stays where the lesion was, since CVAT moves shapes between two frames.
    assert first[2].attrib["points"] == first[1].attrib["points"] != first[0].attrib["points"]
    # Nothing is written beyond the last frame that is known.
    (only,) = tracks_of(tmp_path / "tracks.xml", [frame(0, square(1, 7))], 1)
    assert shapes(only) == [(0, False)]


def test_a_finding_without_a_number_and_a_lesion_of_two_classes(tmp_path: Path) -> None:
    frames = [frame(0, square(1, None), square(9, 3)), frame(1, square(1, None), square(9, 3, 2))]
    found = tracks_of(tmp_path / "tracks.xml", frames, 2)
    assert [shapes(track) for track in found] == [
        [(0, False), (1, True)], [(0, False), (1, True)], [(1, False)], [(1, False)]
    ]  # fmt: skip
    assert [track.attrib["label"] for track in found] == ["polyp", "polyp", "polyp", LABELS[2]]
    assert [lesion_of(track) for track in found] == [set(), {"3"}, set(), {"3"}]
    assert [track.attrib["id"] for track in found] == ["4", "3", "5", "6"]


def test_polygons_have_the_pixels_of_the_regions(tmp_path: Path) -> None:
    """Random regions with holes, each as a lesion of its own."""
    frames, wanted = [], []
    for index in range(3):
        findings = found(index, smooth=1.0, classes=3)
        regions = tuple(annotate(findings, list(range(1, len(findings.regions) + 1))))
        frames.append(frame(index, *regions))
        wanted.append(findings.mask)
    masks = np.zeros((3, *HW), np.uint8)
    for track in tracks_of(tmp_path / "tracks.xml", frames, 3):
        value = [*LABELS.values()].index(track.attrib["label"]) + 1
        for shape, (index, outside) in zip(track, shapes(track), strict=True):
            if not outside:
                assert not (masks[index] * filled(shape)).any()
                masks[index] += value * filled(shape)
    np.testing.assert_array_equal(masks, wanted)


def test_a_run_without_findings(tmp_path: Path) -> None:
    assert tracks_of(tmp_path / "tracks.xml", [frame(0), frame(1)], 2) == []
    assert tracks_of(tmp_path / "tracks.xml", [], 0) == []
