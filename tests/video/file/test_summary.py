"""vmkla.video.file.summary: what was found, when and where."""

from __future__ import annotations

from typing import Any

import pytest

from vmkla.video.file.summary import FindingsSummary, place


def row(
    at: float | str, *boxes: tuple[int, int, int, int], areas_px: tuple[int, ...] = (), segmented: bool = True
) -> dict[str, Any]:
    """A line of frames.jsonl for a frame of 200x100; at a time, or of an image."""
    named = {"name": at} if isinstance(at, str) else {"pts_s": at}
    sizes = list(areas_px) or [w * h for _, _, w, h in boxes]
    found = {"boxes": [list(box) for box in boxes], "box_areas_px": sizes}
    nothing = {"boxes": None, "box_areas_px": None}
    return {**named, "frame_hw": [100, 200], "segmented": segmented, **(found if segmented else nothing)}


def summary(*rows: dict[str, Any], stride: int = 1) -> dict[str, Any]:
    adding = FindingsSummary(stride)
    for each in rows:
        adding.add(each)
    adding.finish()
    return adding.to_dict()


BOX = (10, 10, 20, 10)


def test_seconds_regions_and_the_largest() -> None:
    found = summary(
        row(0.0), row(0.1, BOX), row(0.2, (150, 70, 40, 20), BOX, areas_px=(500, 90)), row(0.3), row(0.4, BOX)
    )
    assert found == {
        "frames": 3,
        "regions": 4,
        "with_finding_s": 0.3,
        "segmented_s": 0.5,
        "first_s": 0.1,
        "last_s": 0.4,
        "largest": {"pts_s": 0.2, "area_fraction": 0.025, "place": "lower right", "box": [150, 70, 40, 20]},
    }


def test_frames_of_different_length_count_by_their_time() -> None:
    found = summary(row(0.0, BOX), row(0.5), row(0.6, BOX), row(0.7))
    assert (found["with_finding_s"], found["segmented_s"]) == (0.6, 0.8)


def test_a_pause_in_the_recording_is_no_finding() -> None:
    found = summary(row(0.0), row(0.1, BOX), row(3600.0), row(3600.1))
    assert found["with_finding_s"] == pytest.approx(1.0) and found["segmented_s"] == pytest.approx(1.3)


def test_with_a_stride_a_frame_stands_for_those_passed_over() -> None:
    frames = [
        row(number * 0.5, *([BOX] if number == 4 else []), segmented=number % 4 == 0) for number in range(9)
    ]
    found = summary(*frames, stride=4)
    assert (found["frames"], found["with_finding_s"], found["segmented_s"]) == (1, 2.0, 6.0)


def test_images_have_names_and_no_seconds() -> None:
    found = summary(row("a.png"), row("b/c.png", (90, 40, 20, 20)))
    assert found == {
        "frames": 1,
        "regions": 1,
        "largest": {"name": "b/c.png", "area_fraction": 0.02, "place": "centre", "box": [90, 40, 20, 20]},
    }


def test_nothing_found() -> None:
    found = summary(row(0.0), row(0.1))
    assert found["regions"] == 0 and found["largest"] is None and found["first_s"] is None
    assert found["segmented_s"] == pytest.approx(0.2)
    assert summary() == {"frames": 0, "regions": 0, "largest": None}


@pytest.mark.parametrize(
    ("across", "down", "name"),
    [(0, 0, "upper left"), (0.5, 0.1, "upper centre"), (1, 1, "lower right"), (0.9, 0.5, "middle right")],
)
def test_places(across: float, down: float, name: str) -> None:
    assert place(across, down) == name
