"""Load the frames on which a new file or engine is compared with its source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.segment.steps import view

SOURCE_FRAMES = 16
"""Largest number of frames that are taken from a source, spread over it."""
RENDERED_FRAMES = 7
"""Number of rendered frames, each from a clip of its own: frames of one clip are alike. ``nano`` marks
nothing in the first and 37 to 1765 of 192x192 pixels in the others."""


def load_gate_frames(
    source: str | None,
    spec: PreprocessSpec,
    *,
    max_megapixels: float = MAX_MEGAPIXELS,
    say: Callable[[str], None] = lambda _: None,
) -> npt.NDArray[np.uint8]:
    """Load frames for a check from a source, or render them.

    Args:
        source: a video, image, folder or pattern; None renders frames.
        spec: preprocessing of the model.
        max_megapixels: larger images and frames are not decoded.
        say: called with notes on the source.
    Returns:
        (n, height, width, 3) uint8 RGB, preprocessed.
    Raises:
        BadInputError: the source cannot be read, or has no frame.
    """
    if source is None:
        return rendered_frames(spec)
    return _source_frames(source, spec, max_megapixels, say)


def rendered_frames(spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Render the first frame of each of the procedural clips with the seeds 0, 1, 2 ..."""
    from vmkla.video.media.clip import render_clip

    frames = []
    for seed in range(RENDERED_FRAMES):
        ((rgb, _),) = render_clip(seed=seed, height=spec.height, width=spec.width, frames=1)
        frames.append(rgb)
    return np.stack(frames)


def _source_frames(
    source: str, spec: PreprocessSpec, max_megapixels: float, say: Callable[[str], None]
) -> npt.NDArray[np.uint8]:
    """Load frames that are spread over a source."""
    from vmkla.video.media.options import ReadOptions
    from vmkla.video.media.sources import open_source

    opened = open_source(source, ReadOptions(max_megapixels=max_megapixels))
    step = max(1, -(-(opened.total or 1) // SOURCE_FRAMES))
    prepared: list[npt.NDArray[np.uint8]] = []
    for index, frame in enumerate(opened.frames()):
        if index % step == 0:
            prepared.append(view(frame.rgb, spec).pixels_rgb)
        if len(prepared) == SOURCE_FRAMES:
            break
    for problem in opened.problems:
        say(f"note: passed over: {problem}")
    for note in opened.notes():
        say(f"note: {note}")
    if not prepared:
        raise BadInputError(f"{source} has no frame to check with")
    return np.stack(prepared)
