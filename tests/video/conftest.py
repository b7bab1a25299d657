"""Clips written with PyAV and read back with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from tests.video.red_runner import RedRunner

Image = npt.NDArray[np.uint8]
WriteClip = Callable[..., Path]


@pytest.fixture
def make_runner() -> type[RedRunner]:
    return RedRunner


def moving_frames(count: int, height: int, width: int, *, seed: int = 0) -> list[Image]:
    """Dark textured frames with a red disc that moves; none in every fifth frame."""
    rng = np.random.default_rng(seed)
    base = rng.integers(20, 90, (height, width, 3)).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    frames = []
    for index in range(count):
        frame = base.copy()
        centre_x = width * (0.25 + 0.5 * index / max(1, count - 1))
        disc = (x - centre_x) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 4) ** 2
        if index % 5 != 4:
            frame[disc] = (230, 30, 30)
        frames.append(frame)
    return frames


@pytest.fixture
def make_frames() -> Callable[..., list[Image]]:
    return moving_frames


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Write frames as a video: name, frames, timestamps in ticks, time base, and what else is wanted."""

    def write(
        name: str,
        frames: Sequence[Image],
        *,
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 12800),
        rate: Fraction = Fraction(25),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        movflags: str | None = "faststart",
        options: dict[str, str] | None = None,
        colours: Callable[[Any], None] | None = None,
        convert: dict[str, Any] | None = None,
        audio: bool = False,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        container_options = {"movflags": movflags} if movflags and path.suffix in (".mp4", ".mov") else {}
        step = int(1 / (rate * time_base))
        with av.open(str(path), "w", options=container_options) as container:
            stream: Any = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.time_base = stream.codec_context.time_base = time_base
            if colours is not None:
                colours(stream.codec_context)
            sound: Any = container.add_stream("aac", rate=8000) if audio else None
            for index, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(format=pix_fmt, **(convert or {}))
                frame.pts = index * step if pts is None else pts[index]
                frame.time_base = time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                silence.sample_rate, silence.pts = 8000, 0
                container.mux(sound.encode(silence))
                container.mux(sound.encode(None))
        return path

    return write


def read_clip(path: Path) -> tuple[list[Image], list[Fraction], Any]:
    """Frames, exact times in seconds, and the stream's traits, by a plain PyAV loop."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        images, times = [], []
        for frame in container.decode(stream):
            images.append(frame.to_ndarray(format="rgb24"))
            assert frame.pts is not None and stream.time_base is not None
            times.append(frame.pts * stream.time_base)
        traits = {
            "size_wh": (stream.width, stream.height),
            "codec": stream.codec_context.name,
            "pix_fmt": stream.codec_context.pix_fmt,
            "time_base": stream.time_base,
            "sample_aspect_ratio": stream.sample_aspect_ratio,
            "colorspace": int(stream.codec_context.colorspace),
            "streams": len(container.streams),
        }
    return images, times, traits


@pytest.fixture
def read_back() -> Callable[[Path], tuple[list[Image], list[Fraction], Any]]:
    return read_clip


@pytest.fixture
def cut_at() -> Callable[[Path, int], Path]:
    """Keep a file's first bytes only."""

    def cut(path: Path, size_bytes: int) -> Path:
        path.write_bytes(path.read_bytes()[:size_bytes])
        return path

    return cut
