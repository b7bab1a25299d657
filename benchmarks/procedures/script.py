"""Script procedures: rendered passages with lesions of exact identity, and findings with errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.findings import Region
from vmkla.segment.preprocess import Rect, union
from vmkla.video.media.clip import FPS, Scene

Image = npt.NDArray[np.uint8]

LEAST_FRACTION = 0.001
"""Share of the frame below which a lesion is not counted, and a component is not a finding."""
_PASSAGE_S = (20.0, 60.0)
"""Duration of a passage; a cut to another scene ends it."""
_LESIONS_PER_PASSAGE = 1000
"""Distance of the numbers of two passages' lesions."""
_FLUSHES_PER_S, _FLUSH_S = 1 / 30, (0.3, 1.5)
_MISSES_PER_S, _MISS_S = 0.5, (0.03, 0.8)
_PIECES_PER_S, _PIECES_S = 0.3, (0.03, 0.3)
_ALARMS_PER_S, _ALARM_S = 0.2, (0.03, 0.4)
"""Rate and duration of flushes of the lens, missed lesions, lesions found in pieces, and false alarms."""


@dataclass(frozen=True, eq=False)
class ScriptedFrame:
    """One frame of a scripted procedure.

    Attributes:
        time_s: its time, seconds.
        rgb: (H, W, 3).
        lesions: box around each visible lesion, by its identity.
        regions: findings, largest first.
    """

    time_s: float
    rgb: Image
    lesions: dict[int, Rect]
    regions: list[Region]


class _Spells:
    """Something that comes and goes at random: Poisson starts, uniform durations."""

    def __init__(self, rng: np.random.Generator, per_s: float, lasting_s: tuple[float, float]) -> None:
        self._rng, self._share, self._lasting_s = rng, per_s / FPS, lasting_s
        self._until_s = -1.0

    def on(self, time_s: float) -> bool:
        """Whether it is there at the next frame."""
        if time_s > self._until_s and self._rng.random() < self._share:
            self._until_s = time_s + self._rng.uniform(*self._lasting_s)
        return time_s <= self._until_s


def scripted_procedure(
    seed: int, minutes: float, height: int, width: int, *, errors: bool = True
) -> Iterator[ScriptedFrame]:
    """Render a procedure and its findings.

    Args:
        seed: equal seeds give equal procedures on one machine.
        minutes: duration.
        height, width: size of the frames, px.
        errors: whether the network misses lesions, finds them in pieces and gives false alarms.
    """
    rng = np.random.default_rng((seed, 19))
    frames = round(minutes * 60 * FPS)
    flush = _Spells(rng, _FLUSHES_PER_S, _FLUSH_S)
    alarm = _Spells(rng, _ALARMS_PER_S if errors else 0.0, _ALARM_S)
    alarm_box = Rect(0, 0, 1, 1)
    misses: dict[int, _Spells] = {}
    pieces: dict[int, _Spells] = {}
    passage, ends, scene, offset = -1, 0, Scene(seed, height, width), 0
    for index in range(frames):
        if index >= ends:
            passage += 1
            ends = index + round(rng.uniform(*_PASSAGE_S) * FPS)
            scene = Scene(1000 * seed + passage, height, width)
            offset = int(rng.integers(0, 3000))
        time_s = index / FPS
        rgb, identity = scene.frame_with_lesions(offset + index)
        if flush.on(time_s):
            rgb, identity = _flushed(rgb, rng), np.zeros_like(identity)
        lesions: dict[int, Rect] = {}
        regions: list[Region] = []
        for number in np.unique(identity[identity > 0]).tolist():
            found = _regions(identity == number)
            box = union(region.box for region in found)
            if box is None:
                continue
            name = passage * _LESIONS_PER_PASSAGE + number
            lesions[name] = box
            missed = misses.setdefault(name, _Spells(rng, _MISSES_PER_S, _MISS_S))
            broken = pieces.setdefault(name, _Spells(rng, _PIECES_PER_S, _PIECES_S))
            if errors and missed.on(time_s):
                continue
            if errors and broken.on(time_s):
                found = _broken(identity == number, box)
            regions += found
        was_on = alarm.on((index - 1) / FPS) if index else False
        if alarm.on(time_s):
            if not was_on:
                w, h = (int(rng.uniform(0.04, 0.15) * side) for side in (width, height))
                alarm_box = Rect(int(rng.integers(0, width - w)), int(rng.integers(0, height - h)), w, h)
            regions.append(Region(alarm_box, round(0.78 * alarm_box.w * alarm_box.h), 1, 0.6, 0.6))
        regions.sort(key=lambda region: -region.area_px)
        yield ScriptedFrame(time_s, rgb, lesions, regions)


def _regions(mask: npt.NDArray[np.bool_]) -> list[Region]:
    """Return the components of a lesion that are large enough."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return [
        Region(Rect(x, y, w, h), area_px, 1, 0.9, 0.9)
        for x, y, w, h, area_px in stats.tolist()[1:]
        if area_px >= LEAST_FRACTION * mask.size
    ]


def _broken(mask: npt.NDArray[np.bool_], box: Rect) -> list[Region]:
    """Return a lesion in two pieces: a strip across its longer side is missing."""
    parted = mask.copy()
    if box.w >= box.h:
        middle, half = box.x + box.w // 2, max(1, box.w // 16)
        parted[:, middle - half : middle + half] = False
    else:
        middle, half = box.y + box.h // 2, max(1, box.h // 16)
        parted[middle - half : middle + half] = False
    return _regions(parted)


def _flushed(rgb: Image, rng: np.random.Generator) -> Image:
    """Return a frame through water: blurred, bright and of little contrast."""
    blurred = cv2.GaussianBlur(rgb, (0, 0), rgb.shape[1] / 16).astype(np.float32)
    return np.clip(200 + 0.2 * blurred + rng.normal(0, 2), 0, 255).astype(np.uint8)
