"""Interlaced clips with exact masks: frames woven from the procedural clip at two times."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vmkla.video.media.clip import Scene

Image = npt.NDArray[np.uint8]


def woven_frames(
    count: int,
    *,
    seed: int = 5,
    height: int = 144,
    width: int = 192,
    apart: int = 3,
    bottom_first: bool = False,
) -> tuple[list[Image], list[Image], list[Image]]:
    """Make frames of two fields, the whole frames at the time of their first fields, and their exact masks.

    Args:
        apart: frames of the procedural clip between two fields, for more or less motion.
        bottom_first: the lower field is the earlier one.
    """
    scene = Scene(seed, height, width)
    woven, whole, masks = [], [], []
    for index in range(count):
        first, mask = scene.frame(2 * apart * index)
        second, _ = scene.frame(2 * apart * index + apart)
        frame = first.copy()
        line = 0 if bottom_first else 1
        frame[line::2] = second[line::2]
        woven.append(frame)
        whole.append(first)
        masks.append(mask)
    return woven, whole, masks


def write_flagged(
    path: Path,
    frames: Sequence[Image],
    *,
    flag: str = "",
    pts: Sequence[int] | None = None,
    colours: Any = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write frames as H.264 at 25 per second.

    Args:
        flag: ``"tff"`` or ``"bff"`` marks the frames as interlaced; empty as progressive.
        pts: in 1/25 s; None is one after the other.
        colours: called with the encoder, to tag it.
    """
    options = {"crf": "8", "preset": "ultrafast", "bf": "0"} if codec == "libx264" else {}
    if flag:
        options["x264-params"] = f"{flag}=1"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if colours is not None:
            colours(stream.codec_context)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            if pts is not None:
                frame.pts = pts[index]
                frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
