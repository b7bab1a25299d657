"""Clips that live mode plays as a camera."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from vmkla.video.media.clip import FPS, render_clip
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.sinks import VideoSink

_RENDERED_WIDTH_PX = 480


def write_clip(path: Path, height: int, width: int, *, seconds: float = 10, seed: int = 4) -> Path:
    """Write a rendered clip as H.264 at 30 frames a second; wide ones are rendered smaller and enlarged."""
    shrink = max(1, round(width / _RENDERED_WIDTH_PX))
    rate = Fraction(FPS)
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = render_clip(seed, height // shrink, width // shrink, round(seconds * FPS))
    with contextlib.closing(VideoSink(path, VideoTraits(1 / rate, rate), (height, width))) as sink:
        for index, (rgb, _) in enumerate(clip):
            large = rgb if shrink == 1 else cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC)
            sink.write(np.asarray(large, np.uint8), index)
    return path
