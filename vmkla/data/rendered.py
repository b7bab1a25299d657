"""Rendered frames as labelled images: more of them, more varied, never evidence of accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vmkla.data.sources import Sample
from vmkla.video.media.clip import Scene

RENDER_HW = (288, 360)
"""Size of rendered training frames, px."""
FRAMES_PER_SCENE, FRAMES_APART = 3, 200
"""Making a scene costs as much as several frames; frames so far apart show other parts of it."""


def rendered_samples(count: int, *, seed: int) -> Iterator[Sample]:
    """Frames from many clips, a few from each.

    Args:
        count: number of frames.
        seed: equal seeds give equal frames.
    """
    for number in range(count):
        clip, turn = divmod(number, FRAMES_PER_SCENE)
        if turn == 0:
            scene = Scene(seed * 1_000_003 + clip, *RENDER_HW)
        rgb, mask = scene.frame(turn * FRAMES_APART)
        yield Sample(f"rendered/{seed}-{number:05d}", rgb, (mask > 0).astype(np.uint8))
