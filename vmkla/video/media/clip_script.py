"""Script a procedure for the procedural clip: passages, cuts and flushes, with lesions of exact identity.

It is evidence for the machinery that follows lesions, not for accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.video.media.clip import FPS, Image, Scene
from vmkla.video.media.clip_files import write_frames

LEAST_FRACTION = 0.001
"""Share of the frame below which a piece of a lesion is not in the masks: nobody could point at it."""
_PASSAGE_S = (20.0, 60.0)
"""Duration of a passage; a cut to another scene ends it."""
_FLUSHES_PER_S, _FLUSH_S = 1 / 30, (0.3, 1.5)
"""Rate and duration of flushes of the lens."""
_MOST_FRAMES = round(24 * 3600 * FPS)
_PASSAGE_SEEDS = 1000
"""Distance of the seeds of two procedures' scenes."""

Labels = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class ScriptedFrame:
    """One frame of a scripted procedure.

    Attributes:
        time_s: its time, seconds.
        rgb: (H, W, 3).
        lesions: (H, W), number of the lesion at each pixel, from 1 in the order of appearance; 0 elsewhere.
    """

    time_s: float
    rgb: Image
    lesions: Labels


@dataclass
class ScriptedLesion:
    """When a lesion of a scripted procedure is visible.

    Attributes:
        number: its number, the grey value in the masks.
        frames: number of frames that show it.
        spans: first and last frame of each time that it is visible without a gap.
    """

    number: int
    frames: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)

    def add(self, index: int) -> None:
        """Count a frame that shows it."""
        self.frames += 1
        if self.spans and index == self.spans[-1][1] + 1:
            self.spans[-1] = (self.spans[-1][0], index)
        else:
            self.spans.append((index, index))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; times in seconds."""
        spans_s = [[round(frame / FPS, 3) for frame in span] for span in self.spans]
        return {"lesion": self.number, "frames": self.frames, "spans_s": spans_s}


class Spells:
    """Something that comes and goes at random: Poisson starts, uniform durations."""

    def __init__(self, rng: np.random.Generator, per_s: float, lasting_s: tuple[float, float]) -> None:
        self._rng, self._share, self._lasting_s = rng, per_s / FPS, lasting_s
        self._until_s = -1.0

    def on(self, time_s: float) -> bool:
        """Whether it is there at the next frame."""
        if time_s > self._until_s and self._rng.random() < self._share:
            self._until_s = time_s + self._rng.uniform(*self._lasting_s)
        return self.lasts(time_s)

    def lasts(self, time_s: float) -> bool:
        """Whether the latest one lasts until a time, without a draw."""
        return time_s <= self._until_s


def script_frames(minutes: float) -> int:
    """Return the number of frames of a scripted procedure.

    Raises:
        UsageError: the duration is below one frame, above 24 hours, or not a number.
    """
    if not 1 <= minutes * 60 * FPS <= _MOST_FRAMES:
        raise UsageError(f"a procedure of {minutes:g} minutes was asked for, expected one frame to 24 hours")
    return round(minutes * 60 * FPS)


def render_procedure(seed: int, minutes: float, height: int, width: int) -> Iterator[ScriptedFrame]:
    """Render a scripted procedure.

    It is a series of passages through different scenes, each ended by a cut. Lesions come into view, are
    hidden by folds and flushes, and go; none comes back after its passage.

    Args:
        seed: equal seeds give equal procedures on one machine.
        minutes: duration, at 30 frames a second.
        height, width: size of the frames, px.
    Raises:
        UsageError: a value is out of range.
    """
    frames = script_frames(minutes)
    first = Scene(_PASSAGE_SEEDS * seed, height, width)  # here, so that it rejects a size now
    return _render(first, seed, frames)


def _render(scene: Scene, seed: int, frames: int) -> Iterator[ScriptedFrame]:
    rng = np.random.default_rng((seed, 19))
    flush = Spells(rng, _FLUSHES_PER_S, _FLUSH_S)
    numbers: dict[tuple[int, int], int] = {}
    passage, ends, offset = -1, 0, 0  # of the passage at hand: number, frame after its last, its own first
    for index in range(frames):
        if index >= ends:
            passage += 1
            ends = index + round(rng.uniform(*_PASSAGE_S) * FPS)
            if passage:
                scene = Scene(_PASSAGE_SEEDS * seed + passage, scene.height, scene.width)
            offset = int(rng.integers(0, 3000))
        rgb, identity = scene.frame_with_lesions(offset + index)
        lesions = np.zeros(identity.shape, np.uint16)
        if flush.on(index / FPS):
            rgb = _flushed(rgb, rng)
        else:
            for own in np.unique(identity[identity > 0]).tolist():
                pixels = _visible(identity == own)
                if pixels.any():
                    lesions[pixels] = numbers.setdefault((passage, own), len(numbers) + 1)
        yield ScriptedFrame(index / FPS, rgb, lesions)


def write_procedure(
    path: Path | str, minutes: float, seed: int, masks_dir: Path | str, *, height: int = 360, width: int = 480
) -> list[ScriptedLesion]:
    """Render a scripted procedure into a video file, and its truth into masks.

    Args:
        path: the video, an MP4 with H.264.
        minutes: duration, at 30 frames a second.
        seed: equal seeds give equal procedures on one machine.
        masks_dir: folder for one grey PNG per frame, ``000000.png`` and on, in which each lesion has its
            number as value: the layout of masks beside a video that ``vmkla eval --procedures`` reads. The
            values are of 8 bits, and of 16 in frames with a number above 255.
        height, width: size of the frames, px; both even, as H.264 requires.
    Returns:
        The lesions in the order of their numbers.
    Raises:
        UsageError: a value is out of range.
        BadInputError: the files cannot be written.
    """
    found: dict[int, ScriptedLesion] = {}

    def pairs() -> Iterator[tuple[Image, npt.NDArray[Any]]]:
        for index, frame in enumerate(rendered):
            for number in np.unique(frame.lesions[frame.lesions > 0]).tolist():
                found.setdefault(number, ScriptedLesion(number)).add(index)
            small = frame.lesions.max() <= np.iinfo(np.uint8).max
            yield frame.rgb, frame.lesions.astype(np.uint8) if small else frame.lesions

    rendered = render_procedure(seed, minutes, height, width)
    write_frames(path, pairs(), (height, width), rate=Fraction(round(FPS)), masks_dir=masks_dir)
    return [found[number] for number in sorted(found)]


def _visible(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return a lesion's pixels without its pieces that are too small."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= LEAST_FRACTION * mask.size
    large[0] = False  # the background
    return np.asarray(large[labels])


def _flushed(rgb: Image, rng: np.random.Generator) -> Image:
    """Return a frame through water: blurred, bright and of little contrast."""
    blurred = cv2.GaussianBlur(rgb, (0, 0), rgb.shape[1] / 16).astype(np.float32)
    return np.asarray(np.clip(200 + 0.2 * blurred + rng.normal(0, 2), 0, 255), np.uint8)
