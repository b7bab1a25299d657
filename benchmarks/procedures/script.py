"""Findings with a network's errors for the scripted procedures that ``vmkla sample --minutes`` renders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.findings import Region
from vmkla.segment.preprocess import Rect, union
from vmkla.video.media.clip import FPS
from vmkla.video.media.clip_script import LEAST_FRACTION, Spells, render_procedure

Image = npt.NDArray[np.uint8]

_MISSES_PER_S, _MISS_S = 0.5, (0.03, 0.8)
_PIECES_PER_S, _PIECES_S = 0.3, (0.03, 0.3)
_ALARMS_PER_S, _ALARM_S = 0.2, (0.03, 0.4)
"""Rate and duration of missed lesions, lesions found in pieces, and false alarms."""


@dataclass(frozen=True, eq=False)
class FoundFrame:
    """One frame of a scripted procedure, and what was found in it.

    Attributes:
        time_s: its time, seconds.
        rgb: (H, W, 3).
        lesions: box around each visible lesion, by its identity.
        perfect: findings of a network that makes no errors, largest first.
        regions: findings of one that misses lesions, finds them in pieces and gives false alarms.
    """

    time_s: float
    rgb: Image
    lesions: dict[int, Rect]
    perfect: list[Region]
    regions: list[Region]


def scripted_procedure(seed: int, minutes: float, height: int, width: int) -> Iterator[FoundFrame]:
    """Render a procedure and its findings.

    Args:
        seed: equal seeds give equal procedures on one machine.
        minutes: duration.
        height, width: size of the frames, px.
    """
    rng = np.random.default_rng((seed, 20))
    alarm = Spells(rng, _ALARMS_PER_S, _ALARM_S)
    alarm_box = Rect(0, 0, 1, 1)
    misses: dict[int, Spells] = {}
    pieces: dict[int, Spells] = {}
    for frame in render_procedure(seed, minutes, height, width):
        time_s, identity = frame.time_s, frame.lesions
        lesions: dict[int, Rect] = {}
        perfect: list[Region] = []
        regions: list[Region] = []
        for name in np.unique(identity[identity > 0]).tolist():
            found = _regions(identity == name)
            box = union(region.box for region in found)
            assert box is not None  # the script leaves out what is too small
            lesions[name] = box
            perfect += found
            missed = misses.setdefault(name, Spells(rng, _MISSES_PER_S, _MISS_S))
            broken = pieces.setdefault(name, Spells(rng, _PIECES_PER_S, _PIECES_S))
            if missed.on(time_s):
                continue
            regions += _broken(identity == name, box) if broken.on(time_s) else found
        was_on = alarm.lasts(time_s - 1 / FPS)
        if alarm.on(time_s):
            if not was_on:
                w, h = (int(rng.uniform(0.04, 0.15) * side) for side in (width, height))
                alarm_box = Rect(int(rng.integers(0, width - w)), int(rng.integers(0, height - h)), w, h)
            regions.append(Region(alarm_box, round(0.78 * alarm_box.w * alarm_box.h), 1, 0.6, 0.6))
        for findings in (perfect, regions):
            findings.sort(key=lambda region: -region.area_px)
        yield FoundFrame(time_s, frame.rgb, lesions, perfect, regions)


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
