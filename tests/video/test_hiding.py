"""Rectangles that are blacked out, and the checks of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.errors import BadInputError, UsageError
from vmkla.segment.preprocess import Rect
from vmkla.video.hiding import Hidden, check_hide, hide, not_inside


@given(
    rect=st.builds(Rect, st.integers(0, 39), st.integers(0, 29), st.integers(1, 60), st.integers(1, 60)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_hiding_covers_both_places_and_no_other(rect: Rect, size: tuple[int, int]) -> None:
    """Compared with the definition, pixel by pixel: its own place, and every pixel that it grows into."""
    rgb = np.full((*size, 3), 200, np.uint8)
    hide(rgb, (rect,), (30, 40))
    y, x = np.mgrid[: size[0], : size[1]]
    same = (x >= rect.x) & (x < rect.x + rect.w) & (y >= rect.y) & (y < rect.y + rect.h)
    scale_y, scale_x = Fraction(size[0], 30), Fraction(size[1], 40)
    touched_y = np.array(
        [n + 1 > rect.y * scale_y and n < (rect.y + rect.h) * scale_y for n in range(size[0])]
    )
    touched_x = np.array(
        [n + 1 > rect.x * scale_x and n < (rect.x + rect.w) * scale_x for n in range(size[1])]
    )
    grown = touched_y[:, None] & touched_x[None, :]
    assert np.array_equal((rgb == 0).all(axis=2), same | grown)


def test_a_frame_is_copied_only_where_something_is_hidden() -> None:
    rgb = np.full((30, 40, 3), 200, np.uint8)
    assert Hidden().of(rgb) is rgb
    shown = Hidden((Rect(30, 20, 90, 90),), (30, 40)).of(rgb)
    assert (rgb == 200).all() and (shown[20:, 30:] == 0).all() and (shown == 0).sum() == 3 * 100


@pytest.mark.parametrize("rect", [Rect(-1, 0, 5, 5), Rect(0, -1, 5, 5), Rect(0, 0, 0, 5), Rect(0, 0, 5, 0)])
def test_rectangles_that_hide_nothing_are_refused(rect: Rect) -> None:
    with pytest.raises(UsageError, match="cannot be hidden"):
        check_hide((Rect(0, 0, 1, 1), rect))


def test_a_rectangle_outside_the_frame_is_named() -> None:
    assert not_inside((Rect(39, 29, 5, 5),), (30, 40)) == ""
    for rect in (Rect(40, 0, 5, 5), Rect(0, 30, 5, 5)):
        assert f"{rect.x},{rect.y},5,5 is not in the frame of 40x30" in not_inside((rect,), (30, 40))
        rgb = np.full((90, 90, 3), 200, np.uint8)  # it is inside this frame, but refers to a smaller one
        with pytest.raises(BadInputError, match="is not in the frame of 40x30"):
            hide(rgb, (Rect(0, 0, 5, 5), rect), (30, 40))
        assert (rgb == 200).all()
