"""Converting a frame leaves nothing for the garbage collector: at 1080p a second of that is 100 MiB."""

from __future__ import annotations

import gc
from pathlib import Path

import av

from tests.faults.clips import write_clip
from vmkla.video.media.rgb import RgbConverter


def test_frames_are_freed_at_once(tmp_path: Path) -> None:
    convert = RgbConverter()
    with av.open(str(write_clip(tmp_path / "clip.mp4", 32, 48, seconds=2))) as container:
        frames = container.decode(video=0)
        convert(next(frames))
        gc.collect()
        gc.disable()
        try:
            for _ in range(40):
                convert(next(frames))
            left = gc.collect()
        finally:
            gc.enable()
    assert left < 40  # a frame that is tied to itself is three objects
