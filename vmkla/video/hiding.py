"""Black out rectangles of frames, such as burned-in names, in recordings, overlays and stills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, UsageError
from vmkla.segment.preprocess import Rect

Image = npt.NDArray[np.uint8]
HIDE_EXAMPLE = "For instance: --hide 0,0,160,40"


def check_hide(rects: Sequence[Rect]) -> None:
    """Check rectangles to black out, as far as that is possible without a frame.

    Raises:
        UsageError: one has no area or begins outside of every frame.
    """
    for rect in rects:
        if rect.x < 0 or rect.y < 0 or rect.w < 1 or rect.h < 1:
            raise UsageError(
                f"the rectangle {rect.x},{rect.y},{rect.w},{rect.h} cannot be hidden, expected X,Y,W,H "
                "in pixels of the frame",
                hint=HIDE_EXAMPLE,
            )


def not_inside(rects: Sequence[Rect], frame_hw: tuple[int, int]) -> str:
    """Return which rectangle lies completely outside a frame, so that it would hide nothing; else empty.

    Args:
        rects: in pixels of the frame.
        frame_hw: height and width of the frame, px.
    """
    height, width = frame_hw
    for rect in rects:
        if rect.x >= width or rect.y >= height:
            return f"rectangle {rect.x},{rect.y},{rect.w},{rect.h} is not in the frame of {width}x{height}"
    return ""


def hide(rgb: Image, rects: Sequence[Rect], reference_hw: tuple[int, int]) -> None:
    """Fill rectangles with black, in place.

    In a frame of another size than the first one, burned-in text may have stayed in place or scaled with the
    frame: both places are filled.

    Args:
        rgb: (H, W, 3) uint8.
        rects: rectangles in pixels of a frame of ``reference_hw``; parts outside are ignored.
        reference_hw: height and width of the frame to which they refer, px.
    Raises:
        BadInputError: a rectangle lies completely outside ``reference_hw``, so that it would hide nothing.
    """
    if outside := not_inside(rects, reference_hw):
        raise BadInputError(outside)
    height, width = rgb.shape[:2]
    from_h, from_w = reference_hw
    for rect in rects:
        rgb[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w] = 0
        if (height, width) != reference_hw:
            top, bottom = rect.y * height // from_h, -(-(rect.y + rect.h) * height // from_h)
            left, right = rect.x * width // from_w, -(-(rect.x + rect.w) * width // from_w)
            rgb[top:bottom, left:right] = 0


@dataclass(frozen=True)
class Hidden:
    """The rectangles to black out in the frames of a source.

    Attributes:
        rects: rectangles in pixels of the first frame, each at least partly inside it; may be none.
        reference_hw: height and width of the first frame, px.
    """

    rects: tuple[Rect, ...] = ()
    reference_hw: tuple[int, int] = (1, 1)

    def of(self, rgb: Image) -> Image:
        """Return a frame with its rectangles blacked out: a copy, or the frame itself where there are none.

        Args:
            rgb: (H, W, 3) uint8; not changed.
        Raises:
            BadInputError: see ``hide``.
        """
        if not self.rects:
            return rgb
        shown: Image = np.array(rgb)
        hide(shown, self.rects, self.reference_hw)
        return shown
