"""Frames of a batch while it runs: by bytes until they are known, and in halves for videos in parts."""

from __future__ import annotations

from pathlib import Path

from vmkla.archive.estimate import FrameEstimate
from vmkla.archive.tasks import VideoPart
from vmkla.archive.work import Entry
from vmkla.video.media.parts import Part


def entry(folder: Path, name: str, size: int) -> Entry:
    path = folder / name
    path.write_bytes(bytes(size))
    return Entry(name, path, "video")


def test_sources_that_are_not_open_count_by_their_bytes(tmp_path: Path) -> None:
    first, second, third = (
        entry(tmp_path, name, size) for name, size in (("a", 100), ("b", 300), ("c", 600))
    )
    estimate = FrameEstimate([first, second, third])
    assert (estimate.done, estimate.total) == (0, None)
    estimate.advance(first, 4, 10)
    assert (estimate.done, estimate.total) == (4, 100)
    estimate.finish(10)
    estimate.settle(first)
    estimate.settle(second)  # it has its result already
    assert (estimate.done, estimate.total) == (10, 70)


def test_a_video_in_parts_counts_half_with_them_and_half_with_the_whole(tmp_path: Path) -> None:
    video, other = entry(tmp_path, "a", 100), entry(tmp_path, "b", 100)
    estimate = FrameEstimate([video, other])
    parts = [VideoPart(video, "", "", "key", Part(first, first + 20, first)) for first in (0, 20, 40)]
    estimate.cut(video, parts, parts[1:])  # the first one is there from an earlier run
    assert (estimate.done, estimate.total) == (10, 120)
    estimate.advance_part(parts[2], 10)
    assert estimate.done == 15
    for part in parts[1:]:
        estimate.advance_part(part, 20)
    assert estimate.done == 30
    estimate.advance(video, 30, 60)
    assert (estimate.done, estimate.total) == (45, 120)
    estimate.finish(60)
    estimate.settle(video)
    assert (estimate.done, estimate.total) == (60, 120)
    estimate.advance_part(parts[0], 20)  # of a video that has ended
    assert estimate.done == 60
