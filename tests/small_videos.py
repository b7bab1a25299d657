"""Videos of a few frames, written and read by PyAV alone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, frames: int = 6, *, size_wh: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    """A small H.264 video of moving noise, by PyAV alone."""
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
    """Frames that a player would show."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
