"""vmkla.procedures.carrying: many lesions move with the scene, and few of them are followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.procedures.test_motion import texture
from vmkla.procedures import boxes, carrying
from vmkla.procedures.carrying import carry
from vmkla.procedures.scene import thumbnail
from vmkla.procedures.tracker_state import Lesion


def test_lesions_beyond_the_limit_move_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The left half of the wall moves by 8 px to the right, the right half by 6 px down."""
    before = texture(0, 240, 480)
    after = before.copy()
    after[:, 8:232] = before[:, :224]
    after[6:, 240:] = before[:-6, 240:]
    lesions = [
        Lesion(number, 1, box, box, (0.0, 0.0), None, float(number))
        for number in range(1, 31)
        for box in [(40.0 + 250 * (number % 2) + 4 * (number // 4), 60.0 + 3 * number, 30.0, 24.0)]
    ]
    followed: list[int] = []
    follow_all = carrying.follow_all

    def watched(first: Any, second: Any, places: Sequence[Any]) -> Any:
        followed.append(len(places))
        return follow_all(first, second, places)

    monkeypatch.setattr(carrying, "follow_all", watched)
    moved = carry(lesions, thumbnail(before), thumbnail(after), 0.1)
    assert followed == [8] and [lesion.number for lesion in moved] == list(range(1, 31))
    for lesion, now in zip(lesions, moved, strict=True):
        shift = np.subtract(boxes.centre(now.box), boxes.centre(lesion.box))
        assert shift == pytest.approx((0, 6) if lesion.number % 2 else (8, 0), abs=1.0), lesion.number
