"""Run lengths and polygons against other libraries, and the choice of formats."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from vmkla.errors import BadInputError, UsageError
from vmkla.procedures.annotations.coco import compress, decompress, frame_counts
from vmkla.procedures.annotations.formats import check_fits, parse_formats, write_annotations
from vmkla.procedures.annotations.polygons import polygon
from vmkla.procedures.annotations.records import (
    AnnotatedFrame,
    AnnotatedRegion,
    annotate,
    label_names,
    run_lengths,
)
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect

Mask = npt.NDArray[np.uint8]


def found(seed: int, *, smooth: float, size_hw: tuple[int, int] = (40, 53), classes: int = 1) -> Findings:
    """Findings of random regions: many, with holes, touching the frame's edges."""
    rng = np.random.default_rng(seed)
    planes = [cv2.GaussianBlur(rng.normal(size=size_hw), (0, 0), smooth) for _ in range(classes)]
    probability = np.stack([1 / (1 + np.exp(-8 * plane / plane.std())) for plane in planes]).astype(
        np.float32
    )
    return find(probability, Rect(0, 0, size_hw[1], size_hw[0]), size_hw, OperatingPoint(0.5))


MANY = [(seed, smooth) for seed in range(6) for smooth in (0.3, 0.8, 2.0)]


@pytest.mark.parametrize(("seed", "smooth"), MANY)
def test_every_region_has_its_own_pixels(seed: int, smooth: float) -> None:
    findings = found(seed, smooth=smooth, classes=3)
    together = np.zeros_like(findings.mask)
    for region, own in zip(findings.regions, annotate(findings), strict=True):
        pixels, box = own.pixels(), region.box
        assert pixels.sum() == region.area_px and own.class_index == region.class_index
        assert cv2.connectedComponents(pixels, connectivity=8)[0] == 2
        window = together[box.y : box.y + box.h, box.x : box.x + box.w]
        assert not (window.astype(bool) & pixels.astype(bool)).any()
        window[pixels > 0] = region.class_index
    np.testing.assert_array_equal(together, findings.mask)


@pytest.mark.parametrize(("seed", "smooth"), MANY)
def test_coco_run_lengths_are_those_of_pycocotools(seed: int, smooth: float) -> None:
    findings = found(seed, smooth=smooth)
    for own in annotate(findings):
        whole = np.zeros((40, 53), np.uint8)
        whole[own.box.y : own.box.y + own.box.h, own.box.x : own.box.x + own.box.w] = own.pixels()
        wanted = coco_mask.encode(np.asfortranarray(whole))
        assert compress(frame_counts(own, (40, 53))) == wanted["counts"].decode()
        assert decompress(wanted["counts"].decode()) == frame_counts(own, (40, 53))


@pytest.mark.parametrize("text", ["é", "0 1", "P", "o" * 20])
def test_what_is_no_text_for_run_lengths(text: str) -> None:
    with pytest.raises(ValueError, match="ends within a number|is not COCO's text"):
        decompress(text)


@pytest.mark.parametrize("flags", ["0", "1", "01", "10", "0011100", "11011"])
def test_run_lengths_begin_outside(flags: str) -> None:
    lengths = run_lengths(np.array([int(flag) for flag in flags], np.uint8))
    assert "".join(str(place % 2) * length for place, length in enumerate(lengths)) == flags
    assert all(length > 0 for length in lengths[1:])


@pytest.mark.parametrize(("seed", "smooth"), MANY)
def test_filling_the_polygon_gives_the_region(seed: int, smooth: float) -> None:
    for own in annotate(found(seed, smooth=smooth)):
        points, filled = polygon(own.pixels()), np.zeros((own.box.h, own.box.w), np.uint8)
        cv2.fillPoly(filled, [points], 1)
        assert len(points) >= 3
        np.testing.assert_array_equal(filled, own.pixels())


def test_a_polygon_with_a_hole_within_a_row_of_holes() -> None:
    ring = np.ones((30, 60), np.uint8)
    for x in (5, 20, 40):
        cv2.circle(ring, (x + 3, 15), 6, 0, -1)
    ring[3, 30] = ring[15, 50] = 0
    filled = np.zeros_like(ring)
    cv2.fillPoly(filled, [polygon(ring)], 1)
    np.testing.assert_array_equal(filled, ring)


def test_a_record_comes_back_from_its_row() -> None:
    frame = AnnotatedFrame(7, "a/b.jpg", (40, 53), tuple(annotate(found(1, smooth=1.0))), "0" * 64)
    assert len(frame.regions) > 3 and AnnotatedFrame.from_row(frame.to_row()) == frame
    assert frame.stem == "a/b"


@pytest.mark.parametrize(
    "change",
    [
        {"frame_hw": [3, 3]}, {"frame_hw": [40]}, {"regions": 1}, {"index": "1"}, {"sha256": 1}, {"name": 5},
        {"name": ""}, {"name": "/"}, {"name": "a\0b"},
    ],
)  # fmt: skip
def test_a_row_that_makes_no_sense_is_none(change: dict[str, object]) -> None:
    row = AnnotatedFrame(7, "a.jpg", (40, 53), tuple(annotate(found(1, smooth=1.0)))).to_row()
    with pytest.raises((TypeError, ValueError)):
        AnnotatedFrame.from_row({**row, **change})
    for key, value in (("counts", [1]), ("box", [0, 0, 0, 5]), ("class", 0), ("counts", [])):
        regions = [{**row["regions"][0], key: value}]
        with pytest.raises((TypeError, ValueError)):
            AnnotatedFrame.from_row({**row, "regions": regions})


@pytest.mark.parametrize("name", ["coco", "cvat"])  # YOLO has a file for each frame
def test_memory_is_flat_in_the_number_of_frames(name: str, tmp_path: Path) -> None:
    findings = found(1, smooth=3.0)
    regions = tuple(annotate(findings, list(range(1, len(findings.regions) + 1))))

    def write(count: int) -> None:
        def frames() -> Iterator[AnnotatedFrame]:
            for index in range(count):
                yield AnnotatedFrame(index, f"{index}.png", (40, 53), regions)

        write_annotations(tmp_path, (name,), frames, {1: "polyp"}, name="clip", count=count, length=count)

    write(200)  # Python keeps freed tuples for later
    tracemalloc.start()
    write(10)
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    write(100)
    many = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert many < 1.3 * few


def test_formats_are_chosen_by_name() -> None:
    assert parse_formats("yolo, coco,coco") == ("coco", "yolo")
    for text in ("voc", "coco,", "", "COCO"):
        if text == "coco,":
            assert parse_formats(text) == ("coco",)
            continue
        with pytest.raises(UsageError) as caught:
            parse_formats(text)
        assert caught.value.hint is not None and "coco, cvat, yolo" in caught.value.hint


def test_classes_have_their_names() -> None:
    assert label_names(("polyp",)) == {1: "polyp"}
    assert label_names(("background", "polyp", "tool")) == {1: "polyp", 2: "tool"}


def test_what_a_format_cannot_hold_is_refused_before_the_run() -> None:
    check_fits(("coco", "yolo"), ["a\x01.png"], {1: "polyp"})
    check_fits(("coco",), ["a.png"], {1: "polyp", 2: "polyp"})
    check_fits(("coco", "cvat", "yolo"), ["b c é 内.png", "a&<\"'>\t.png"], {1: "polyp"})
    for name in ("a\x01.png", "a\udcff.png"):
        with pytest.raises(BadInputError, match="XML, which cannot hold the name") as caught:
            check_fits(("coco", "cvat"), [name], {1: "polyp"})
        assert caught.value.hint is not None and "--export" in caught.value.hint
    with pytest.raises(BadInputError, match="two classes of the model have one name"):
        check_fits(("yolo",), [], {1: "polyp", 2: "polyp"})


def test_a_lesions_number_is_no_part_of_the_pixels() -> None:
    region = AnnotatedRegion(1, 0.5, Rect(2, 3, 2, 2), (0, 3, 1), track_id=4)
    np.testing.assert_array_equal(region.pixels(), [[1, 1], [1, 0]])
