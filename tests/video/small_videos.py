"""Videos of a few frames, written and read by PyAV alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition


def write_video(path: Path, frames: int = 6, *, size_wh: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    """Write a small H.264 video of moving noise with PyAV alone."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    texture = rng.integers(0, 256, (height, width + frames, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = np.ascontiguousarray(texture[:, index : index + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def count_frames(path: Path) -> int:
    """Count the frames that a player shows."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def set_disposition(stream: Any, value: Disposition) -> None:
    try:
        stream.disposition = value
    except TypeError:  # PyAV before 18
        stream.disposition = value.value


def write_tracks(
    path: Path, sizes_wh: Sequence[tuple[int, int]], *, default: int | None = None, count: int = 5
) -> Path:
    """Write a file with several H.264 tracks, each of one grey level: 50, 100, 150 ..."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        for width, height in sizes_wh:
            stream: Any = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number, stream in enumerate(streams, start=1):
            set_disposition(stream, Disposition.default if number == default else Disposition(0))
        for _ in range(count):
            for number, stream in enumerate(streams, start=1):
                grey = np.full((stream.height, stream.width, 3), 50 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path
