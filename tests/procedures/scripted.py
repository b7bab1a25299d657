"""Scripted scenes: discs of exact identity on a textured wall, and the findings of each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.findings import Region
from vmkla.segment.preprocess import Rect

Image = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 240, 320
RED, PALE = (200, 40, 40), (210, 170, 140)


def region(x: float, y: float, w: float, h: float, class_index: int = 1) -> Region:
    """A finding that fills an ellipse in its box."""
    return Region(
        Rect(round(x), round(y), round(w), round(h)), max(1, round(0.78 * w * h)), class_index, 0.9, 0.9
    )


@functools.cache
def wall(seed: int = 0) -> Image:
    """A textured wall, larger than a frame, for a camera to move over."""
    noise = np.random.default_rng(seed).normal(0, 1, (2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    colour = np.array((170, 100, 80)) + 25 * smooth / smooth.std()
    return np.clip(colour, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Disc:
    """A lesion in a frame: its identity, centre and radius in px, colour, and whether it is found."""

    name: str
    x: float
    y: float
    radius: float = 20.0
    colour: tuple[int, int, int] = RED
    found: bool = True


def render(discs: Sequence[Disc], pan: tuple[float, float] = (0, 0), seed: int = 0) -> Image:
    """A frame of the wall from a place, with discs on it."""
    x, y = round(pan[0]), round(pan[1])
    rgb = np.ascontiguousarray(wall(seed)[y : y + HEIGHT, x : x + WIDTH])
    for disc in discs:
        cv2.circle(rgb, (round(disc.x), round(disc.y)), round(disc.radius), disc.colour, -1, cv2.LINE_AA)
        # a texture of its own, which moves with it
        for dx, dy in ((-0.4, 0.1), (0.3, -0.3), (0.1, 0.5)):
            place = (round(disc.x + dx * disc.radius), round(disc.y + dy * disc.radius))
            cv2.circle(rgb, place, 3, tuple(int(0.7 * value) for value in disc.colour), -1)
    return rgb


def findings(discs: Sequence[Disc]) -> list[Region]:
    """The findings of the discs that are found, in their order."""
    return [
        region(disc.x - disc.radius, disc.y - disc.radius, 2 * disc.radius, 2 * disc.radius)
        for disc in discs
        if disc.found
    ]
