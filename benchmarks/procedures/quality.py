"""Time the picture quality of a frame on one core, or measure it on images and videos.

    python benchmarks/procedures/quality.py                    # times at 480x360 and 1920x1080, as a table
    python benchmarks/procedures/quality.py --of images/ clip.mp4   # 99th percentiles of the measures of each

Times are of the processor, so that other work on the machine disturbs them less.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from vmkla.cpu_features import cpu_name
from vmkla.procedures.quality import FrozenPicture, measure, small_view, still_score
from vmkla.segment.preprocess import Rect
from vmkla.video.file.view import Views
from vmkla.video.media.clip import render_clip
from vmkla.video.media.sources import open_source

SIZES_WH = ((480, 360), (1920, 1080))


MEASURES = ("blur", "glare", "overexposed", "underexposed")


def percentiles(source: str) -> str:
    """Return a row with the 99th percentile of each measure over a source's frames."""
    opened = open_source(source)
    views = Views.of_source(opened, "auto")
    found = [measure(small_view(frame.rgb, views.of(frame))) for frame in opened.frames()]
    values = [np.percentile([getattr(quality, name) for quality in found], 99) for name in MEASURES]
    return f"| {len(found)} | {' | '.join(f'{value:.3f}' for value in values)} |"


def main() -> None:
    """Print the median and the 95th percentile of the time by size, or the measures of what is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="Frames that are timed at each size.")
    parser.add_argument("--of", nargs="+", help="Folders of images, or videos, to measure.")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.of:
        print(f"| frames | {' | '.join(MEASURES)} |\n|{'---|' * (1 + len(MEASURES))}")
        for source in arguments.of:
            print(percentiles(source))
        return
    repeats = arguments.frames
    print(f"{cpu_name()}, one core, OpenCV {cv2.__version__}\n")
    print("| frame | ms, median | ms, p95 |\n|---|---|---|")
    for width, height in SIZES_WH:
        frames = [rgb for rgb, _ in render_clip(7, height, width, 4)]
        field, box = Rect(0, 0, width, height), Rect(width // 3, height // 3, width // 8, width // 8)
        frozen, spent_ms = FrozenPicture(), []
        for index in range(repeats):
            began = time.thread_time()
            view = small_view(frames[index % len(frames)], field)
            measure(view)
            frozen.see(view, index / 30)
            still_score(view, box)
            spent_ms.append(1e3 * (time.thread_time() - began))
        print(f"| {width}x{height} | {np.median(spent_ms):.2f} | {np.percentile(spent_ms, 95):.2f} |")


if __name__ == "__main__":
    main()
