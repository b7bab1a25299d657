"""Describe the colour of a finding, and compare two of them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect

Appearance = tuple[float, ...]
"""Mean and standard deviation of the red share, then of the green share of the light, each 0 to 1."""

_SAMPLES_PER_SIDE = 24
_INSET = 8
"""The outermost eighths of the box are left out: its corners show the mucosa around the lesion."""
_LEAST_DEVIATION = 0.01
_DARKEST = 30
"""Sum of the three channels below which a pixel has no reliable colour."""
_BRIGHTEST = 240
"""Value of the darkest channel above which a pixel is glare."""


def describe(rgb: npt.NDArray[np.uint8], box: Rect) -> Appearance | None:
    """Describe the colour inside a box, independent of the lamp's distance.

    Args:
        rgb: (H, W, 3) uint8.
        box: where the finding is, px.
    Returns:
        The appearance; None outside the frame, and where nearly all pixels are dark or glare.
    """
    inset_x, inset_y = box.w // _INSET, box.h // _INSET
    left, top = max(0, box.x + inset_x), max(0, box.y + inset_y)
    window = rgb[top : max(0, box.y + box.h - inset_y), left : max(0, box.x + box.w - inset_x)]
    if window.size == 0:
        return None
    step_y, step_x = (-(-side // _SAMPLES_PER_SIDE) for side in window.shape[:2])
    pixels = window[::step_y, ::step_x].reshape(-1, 3).astype(np.float32)
    light = pixels.sum(axis=1)
    pixels, kept_light = (
        part[(light > _DARKEST) & (pixels.min(axis=1) < _BRIGHTEST)] for part in (pixels, light)
    )
    if len(pixels) < max(1, len(light) // 8):
        return None
    shares = pixels[:, :2] / kept_light[:, None]
    mean, deviation = shares.mean(axis=0), shares.std(axis=0)
    return tuple(float(value) for pair in zip(mean, deviation, strict=True) for value in pair)


def similarity(first: Appearance, second: Appearance) -> float:
    """Compare two appearances: 1 for equal ones, near 0 for colours that share nothing.

    Source: Bhattacharyya, Bulletin of the Calcutta Mathematical Society 35, 1943, for normal distributions.
    """
    result = 1.0
    for place in (0, 2):
        sigma_a, sigma_b = (max(_LEAST_DEVIATION, side[place + 1]) for side in (first, second))
        spread = sigma_a**2 + sigma_b**2
        result *= math.sqrt(2 * sigma_a * sigma_b / spread) * math.exp(
            -((first[place] - second[place]) ** 2) / (4 * spread)
        )
    return result


def blend(before: Appearance | None, now: Appearance | None, share: float) -> Appearance | None:
    """Mix the appearance of a new frame into that of a lesion.

    Args:
        before, now: either may be unknown.
        share: share of ``now``, 0 to 1.
    """
    if before is None or now is None:
        return now if before is None else before
    return tuple(a + share * (b - a) for a, b in zip(before, now, strict=True))
