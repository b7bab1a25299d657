"""experiments.clip: what the operating point takes away in a clip, against a count of each frame alone."""

from __future__ import annotations

from pathlib import Path

import vmkla
from experiments.clip import count, highest_peak
from vmkla.segment.operating_point import OperatingPoint, PointOverrides
from vmkla.video.media.clip import write_clip


def test_counts_are_those_of_single_frames(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, seed=2, frames=6, height=120, width=160)
    with vmkla.open("nano") as segmenter:
        frames = [frame.findings for frame in segmenter.video(clip)]
    peak = sorted(found.regions[0].peak for found in frames)[2]  # the largest of two frames are below
    found = count("nano", clip, PointOverrides(peak=peak))
    point = OperatingPoint(0.5, peak)
    kept = [
        [region for region in each.regions if point.accepts(region.area_px, region.peak, 1)]
        for each in frames
    ]
    assert found["frames"] == 6 and found["operating_point"]["peak"] == peak
    assert found["largest_lost"] == sum(e.regions[0] not in k for e, k in zip(frames, kept, strict=True)) == 2
    assert found["several_regions"] == sum(len(each.regions) > 1 for each in frames)
    assert found["several_findings"] == sum(len(each) > 1 for each in kept)
    assert found["without_finding"] == sum(not each for each in kept)


def test_the_highest_peak_takes_few_enough_away() -> None:
    peaks = [0.9, 0.555, 0.72, 0.6]
    for lost, peak in ((0, 0.55), (1, 0.6), (2, 0.72), (3, 0.9)):
        assert highest_peak(peaks, lost) == peak
        assert sum(each < peak for each in peaks) == lost
    assert highest_peak(peaks, 4) is None and highest_peak([], 0) is None
