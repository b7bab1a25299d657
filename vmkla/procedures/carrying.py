"""Move lesions with the scene from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vmkla.procedures import boxes
from vmkla.procedures.motion import Motion, follow_all
from vmkla.procedures.scene import Thumbnail
from vmkla.procedures.tracker_state import Lesion

_DRIFT_FOLLOWED, _DRIFT_LOST = 0.5, 1.5
"""Growth of a lesion's possible distance from its box while it is not seen, diagonals of the box a second."""
_LEAST_SIDE = 0.1
"""Smallest diagonal for that, share of the frame's longer side: small lesions move as far as large ones."""
_MOST_FOLLOWED = 8
"""Lesions that are followed, those that were seen last: findings that flicker leave dozens, and following all
of them takes as long as the network."""
_HALF_LIFE_S = 0.5
"""Time in which a velocity halves while nothing confirms it."""


def carry(
    lesions: Sequence[Lesion], before: Thumbnail | None, after: Thumbnail | None, elapsed_s: float
) -> list[Lesion]:
    """Move lesions to the next frame.

    Args:
        lesions: as they were in the frame before.
        before, after: thumbnails of both frames; without them lesions move by their velocities.
        elapsed_s: time between both, seconds.
    Returns:
        The lesions in the same order; their drift grows until they are seen again.
    """
    motions: Sequence[Motion | None] = [None] * len(lesions)
    if before is not None and after is not None:
        motions = _motions(lesions, before, after)
    side_px = 0.0
    if after is not None:
        side_px = max(after.grey.shape[1] * after.shrink[0], after.grey.shape[0] * after.shrink[1])
    result = []
    for lesion, motion in zip(lesions, motions, strict=True):
        scale_px = max(boxes.diagonal(lesion.box), _LEAST_SIDE * side_px)
        if motion is not None and _sensible(boxes.moved(lesion.box, motion), side_px):
            box, extent = boxes.moved(lesion.box, motion), boxes.moved(lesion.extent, motion)
            velocity, rate = _velocity(lesion.box, box, elapsed_s), _DRIFT_FOLLOWED
        else:
            x, y = (speed * elapsed_s for speed in lesion.velocity)
            box, extent = boxes.shifted(lesion.box, x, y), boxes.shifted(lesion.extent, x, y)
            fade = 0.5 ** (elapsed_s / _HALF_LIFE_S) if lesion.drift_px > 0 else 1.0
            velocity, rate = (lesion.velocity[0] * fade, lesion.velocity[1] * fade), _DRIFT_LOST
        drift_px = lesion.drift_px + rate * scale_px * elapsed_s
        result.append(replace(lesion, box=box, extent=extent, velocity=velocity, drift_px=drift_px))
    return result


def _motions(lesions: Sequence[Lesion], before: Thumbnail, after: Thumbnail) -> list[Motion | None]:
    """Return the motion of each lesion: its own, or that of the nearest one that is followed."""
    latest = sorted(range(len(lesions)), key=lambda place: lesions[place].seen_s, reverse=True)
    followed = sorted(latest[:_MOST_FOLLOWED])
    own = follow_all(before, after, [boxes.to_rect(lesions[place].box) for place in followed])
    if len(followed) == len(lesions):
        return own
    centres = np.array([boxes.centre(lesion.box) for lesion in lesions])  # (lesions, 2)
    offsets = centres[:, None] - centres[None, followed]
    nearest = np.square(offsets).sum(axis=2).argmin(axis=1)  # a lesion that is followed is nearest to itself
    return [own[place] for place in nearest]


def _sensible(box: boxes.Box, side_px: float) -> bool:
    """Whether a box that was moved many times without being seen still has the size of a lesion."""
    return min(box[2], box[3]) >= 1 and max(box[2], box[3]) <= 2 * side_px


def _velocity(before: boxes.Box, after: boxes.Box, elapsed_s: float) -> tuple[float, float]:
    """Return the velocity of a box's centre, px per second; zero between frames of one time."""
    if elapsed_s <= 0:
        return 0.0, 0.0
    (x, y), (to_x, to_y) = boxes.centre(before), boxes.centre(after)
    return (to_x - x) / elapsed_s, (to_y - y) / elapsed_s
