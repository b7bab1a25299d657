"""Score how well a finding continues a lesion, from place, size and colour."""

from __future__ import annotations

import math

from vmkla.procedures.appearance import Appearance, similarity
from vmkla.procedures.boxes import Box, centre, coverage, diagonal, iou
from vmkla.procedures.tracker_state import Lesion

LEAST_SCORE = 0.3
"""Score below which a finding is not the continuation of a lesion."""
LEAST_CANDIDATE = 0.5
"""The same for what is decided later, with knowledge of what followed."""
_WEIGHTS = (0.4, 0.3, 0.3)
"""Weights of overlap, place and colour; without colours the first two share the third's."""
_MERGED_WEIGHTS = (0.2, 0.1, 0.7)
"""The same for lesions that were one finding: where each of them is in it is not known, its colour is."""
_NEAR = 0.6
"""Distance of two centres that still counts as near, diagonals of the boxes."""
_SIZE_RATIO = 8.0
"""Ratio of two areas beyond which they are not the same lesion, unless one box lies in the other."""
_INSIDE, _PART = 0.5, 0.6
"""Share of the smaller box inside the larger one for that, and its weight as an overlap: a network often
finds only a part of a lesion."""


def score(
    lesion: Lesion, box: Box, class_index: int, appearance: Appearance | None, *, merged: bool = False
) -> float:
    """Score a finding as the continuation of a lesion.

    Args:
        lesion: moved to the finding's frame.
        box, class_index, appearance: of the finding.
        merged: whether the lesion was last seen as one finding with another lesion.
    Returns:
        0 to 1; -1 where class, size or place exclude it.
    """
    if lesion.class_index != class_index:
        return -1.0
    (x, y), (to_x, to_y) = centre(lesion.box), centre(box)
    reach_px = _NEAR * (diagonal(lesion.box) + diagonal(box)) / 2 + lesion.drift_px
    place = 1 - math.hypot(to_x - x, to_y - y) / reach_px
    if place <= 0:
        return -1.0
    ratio = (box[2] * box[3]) / (lesion.box[2] * lesion.box[3])
    inside = max(coverage(box, lesion.box), coverage(lesion.box, box))
    if inside < _INSIDE and not 1 / _SIZE_RATIO <= ratio <= _SIZE_RATIO:
        return -1.0
    for_overlap, for_place, for_colour = _MERGED_WEIGHTS if merged else _WEIGHTS
    result = for_overlap * max(iou(lesion.box, box), _PART * inside) + for_place * place
    if lesion.appearance is None or appearance is None:
        return result / (for_overlap + for_place)
    return result + for_colour * similarity(lesion.appearance, appearance)
