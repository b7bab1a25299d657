"""List the regions of every frame of a video: python video_to_csv.py VIDEO ROWS.csv"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import vmkla


def main(video: str, rows: str) -> None:
    """Segment ``video`` and write one row for each region."""
    with vmkla.open("nano") as segmenter, Path(rows).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "time_s", "x", "y", "width", "height", "area_px", "probability"])
        for frame in segmenter.video(video):
            for region in frame.findings.regions:
                writer.writerow([frame.index, frame.pts_s, *region.box, region.area_px, region.probability])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
