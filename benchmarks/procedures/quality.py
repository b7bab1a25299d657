"""Time the picture quality of a frame on one core, in ms a frame.

    python benchmarks/procedures/quality.py            # 480x360 and 1920x1080, prints a table

The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from vmkla.cpu_features import cpu_name
from vmkla.procedures.quality import FrozenPicture, measure, small_view, still_score
from vmkla.segment.preprocess import Rect
from vmkla.video.media.clip import render_clip

SIZES_WH = ((480, 360), (1920, 1080))


def main() -> None:
    """Print the median and the 95th percentile by size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300, help="Frames that are timed at each size.")
    repeats = parser.parse_args().frames
    cv2.setNumThreads(1)
    print(f"{cpu_name()}, one core, OpenCV {cv2.__version__}\n")
    print("| frame | ms, median | ms, p95 |\n|---|---|---|")
    for width, height in SIZES_WH:
        frames = [rgb for rgb, _ in render_clip(7, height, width, 4)]
        field, box = Rect(0, 0, width, height), Rect(width // 3, height // 3, width // 8, width // 8)
        frozen, spent_ms = FrozenPicture(), []
        for index in range(repeats):
            began = time.perf_counter()
            view = small_view(frames[index % len(frames)], field)
            measure(view)
            frozen.see(view, index / 30)
            still_score(view, box)
            spent_ms.append(1e3 * (time.perf_counter() - began))
        print(f"| {width}x{height} | {np.median(spent_ms):.2f} | {np.percentile(spent_ms, 95):.2f} |")


if __name__ == "__main__":
    main()
