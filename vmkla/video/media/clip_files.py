"""Write the frames of a rendered clip into a video, and their masks into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.files import make_folder, output_errors
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.images import write_png
from vmkla.video.media.sinks import VideoSink


def write_frames(
    path: Path | str,
    clip: Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]],
    frame_hw: tuple[int, int],
    *,
    rate: Fraction,
    masks_dir: Path | str | None = None,
) -> None:
    """Write rendered frames into a video file, completely or not at all, and their masks into a folder.

    Args:
        path: the video, an MP4 with H.264.
        clip: (H, W, 3) uint8 RGB and (H, W) mask of each frame, grey of 8 or 16 bits.
        frame_hw: height and width of the frames, px; both even, as H.264 requires.
        rate: frame rate of the file.
        masks_dir: folder for one PNG per frame, ``000000.png`` and on; None writes none.
    Raises:
        UsageError: a side is odd.
        BadInputError: the files cannot be written.
    """
    height, width = frame_hw
    if height % 2 or width % 2:
        raise UsageError(f"H.264 wants even sides, got {width}x{height} (width x height)")
    path = Path(path)
    with output_errors(path):
        for folder in (path.parent, *([] if masks_dir is None else [Path(masks_dir)])):
            make_folder(folder)
    done = False
    sink = VideoSink(path, VideoTraits(time_base=1 / rate, frame_rate=rate), frame_hw)
    try:
        for index, (rgb, mask) in enumerate(clip):
            sink.write(rgb, index)
            if masks_dir is not None:
                write_png(Path(masks_dir) / f"{index:06d}.png", mask)
        done = True
    finally:
        sink.close(keep=done)
