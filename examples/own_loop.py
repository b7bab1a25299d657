"""Put the steps into a loop of your own, four frames at a time: python own_loop.py VIDEO

``vmkla.open`` is simpler; this is for programs that batch frames or decode them in another way.
"""

from __future__ import annotations

import itertools
import sys

import vmkla
from vmkla.segment.steps import check, find, infer, view
from vmkla.video.media.sources import open_source

BATCH = 4


def main(video: str) -> None:
    """Print the area of the findings of each frame."""
    runner = vmkla.load_runner("nano")
    try:
        spec = runner.spec
        frames = open_source(video).frames()
        while part := list(itertools.islice(frames, BATCH)):
            views = [view(frame.rgb, spec.metadata.preprocess) for frame in part]
            probability = infer(runner, [seen.pixels_rgb for seen in views])
            check(probability, spec, len(views))
            for frame, seen, one in zip(part, views, probability, strict=True):
                height, width = frame.rgb.shape[:2]
                findings = find(one, seen.rect, (height, width), spec.operating_point)
                print(f"{frame.index}: {100 * findings.area_fraction:.2f} %")
    finally:
        runner.close()


if __name__ == "__main__":
    main(sys.argv[1])
