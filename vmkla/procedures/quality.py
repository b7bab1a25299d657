"""Measure the picture quality of a frame: blur, exposure, glare, black, and frozen over time.

All measures are taken from one small copy of the field of view, without the endoscope's border.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect

_SIDE_PX = 180
"""Shorter side of the field of view in the small copy, px: about what the networks see."""
_BLUR_TAPS = 9
"""Length of the box filter that blurs the copy once more (Crete et al. use 9)."""
_NOISE = 1.0
"""Difference between neighbouring pixels, grey levels, that counts as noise. Eight bits make steps of 1 out
of the smooth slopes of a blurred frame, and these must not pass for edges."""
_FAINT = 0.05
"""Mean difference, grey levels, added below the line: a picture with hardly any difference is not sharp."""
_BORDER_LEVEL, _BORDER_MARGIN_PX = 30, 4
"""Pixels of the border are at most this bright, and so many pixels of the copy beside it are left out."""
_WHITE = 225
"""The darkest channel of white pixels, glare or overexposed, is at least this; tissue is red and never is."""
_DARK_LEVEL = 25
"""Pixels whose grey level is below this show nothing."""
_GLARE_SIDE = 1 / 8
"""Width below which a white area is glare and from which it is overexposed, over the shorter side."""
_BLACK_LEVEL = 24
"""Brightest channel of a black frame; live mode's signal check has the same limit and its reason."""
_FROZEN_LEVEL = 3.0
"""Change of a block's mean, grey levels, up to which it is the same: a codec's noise stays below it."""
_FROZEN_HW = (18, 32)
"""Blocks over the field of view that are compared, down and across."""

POOR = {"blur": 0.65, "glare": 0.07, "overexposed": 0.1, "underexposed": 0.5}
"""Value of each measure above which a picture is poor.

The 99th percentiles over the images of Kvasir-SEG, CVC-ClinicDB and PolypGen and over two videos are at most
0.64 (blur), 0.06 (glare), 0.07 (overexposed) and 0.13 (underexposed), see
``benchmarks/procedures/quality.py --of``.
"""
FROZEN_S = 1.0
"""Time from which a picture that stays the same is reported as frozen, seconds."""
PoorReason = Literal["black", "blur", "glare", "overexposed", "underexposed"]

Grey = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SmallView:
    """The field of view of a frame in a small copy, from which everything is measured.

    Attributes:
        grey: (h, w) float32, 0 to 255; the shorter side has at most 180 px.
        inside: (h, w) uint8, 255 inside the picture and 0 on the endoscope's border.
        white: (h, w) uint8, 255 where the picture is white, 0 elsewhere.
        glare: (h, w) uint8, the part of ``white`` in narrow spots.
        brightest: largest value of any channel, 0 to 255.
        rect: the field of view, px of the frame.
    """

    grey: npt.NDArray[np.float32]
    inside: Flags
    white: Flags
    glare: Flags
    brightest: int
    rect: Rect


@dataclass(frozen=True)
class Quality:
    """The picture quality of a frame, or of a part of it.

    Attributes:
        blur: 0 (sharp) to 1 (nothing sharp): share of the differences between neighbouring pixels that
            another blur leaves, the larger one of both directions. Pixels of border and glare do not count.
        brightness: mean grey level, 0 to 1.
        overexposed: share of the picture in white areas at least 1/8 of its shorter side wide, 0 to 1.
        glare: share of the picture in narrower white spots, 0 to 1.
        underexposed: share of the picture darker than 25 of 255 grey levels, 0 to 1. The open lumen is dark
            too; dark areas that reach the left or right end of a row are taken for the border.
        black: whether no channel of any pixel is above 24 of 255.
    Source: Crete et al., The blur effect, Proc. SPIE 6492, 2007 (``blur``, with a limit for noise); Oh et
        al., Informative frame classification for endoscopy video, Medical Image Analysis 11, 2007 (glare is
        bright and without colour).
    """

    blur: float
    brightness: float
    overexposed: float
    glare: float
    underexposed: float
    black: bool

    @property
    def sharpness(self) -> float:
        """1 minus the blur: 0 (nothing sharp) to 1."""
        return 1.0 - self.blur

    @property
    def poor(self) -> PoorReason | None:
        """Why the picture is poor: it is black, or the first measure above its limit; None when it is not."""
        if self.black:
            return "black"
        reasons: tuple[PoorReason, ...] = ("underexposed", "overexposed", "glare", "blur")
        return next((name for name in reasons if getattr(self, name) > POOR[name]), None)


def small_view(frame_rgb: npt.NDArray[np.uint8], rect: Rect) -> SmallView:
    """Make the small copy of a frame's field of view.

    Args:
        frame_rgb: (H, W, 3) uint8, RGB.
        rect: the field of view, px of the frame, inside it.
    """
    view = frame_rgb[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w]
    scale = min(1.0, _SIDE_PX / min(rect.w, rect.h))
    size_wh = (max(1, round(rect.w * scale)), max(1, round(rect.h * scale)))
    # Reading four pixels for each one of the copy takes a seventh of the time of a mean over all at 1080p.
    small = cv2.resize(view, size_wh, interpolation=cv2.INTER_LINEAR) if scale < 1 else view
    channels = cv2.split(small)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
    inside = _inside(grey)
    darkest = cv2.min(cv2.min(channels[0], channels[1]), channels[2])
    white = np.asarray(cv2.threshold(darkest, _WHITE - 1, 255, cv2.THRESH_BINARY)[1], np.uint8)
    brightest = max(int(channel.max()) for channel in channels)
    return SmallView(grey.astype(np.float32), inside, white, _spots(white), brightest, rect)


def measure(view: SmallView, box: Rect | None = None) -> Quality:
    """Measure the quality of a frame, or of a box in it.

    Args:
        view: what ``small_view`` returned.
        box: part of the frame to measure, px of the frame; None measures the whole field of view. Of a
            small box its surroundings are measured as well, up to 32 px of the copy a side.
    """
    rows, columns = _part(view, box)
    grey, inside = view.grey[rows, columns], view.inside[rows, columns]
    white, glare = view.white[rows, columns], view.glare[rows, columns]
    count = cv2.countNonZero(inside)
    if not count:
        return Quality(1.0, 0.0, 0.0, 0.0, 1.0, view.brightest <= _BLACK_LEVEL)
    in_white, in_glare = (cv2.countNonZero(cv2.bitwise_and(each, inside)) for each in (white, glare))
    dark = cv2.threshold(grey, _DARK_LEVEL, 1.0, cv2.THRESH_BINARY_INV)[1]
    return Quality(
        blur=_blur(grey, inside, white),
        brightness=cv2.mean(grey, inside)[0] / 255,
        overexposed=(in_white - in_glare) / count,
        glare=in_glare / count,
        underexposed=cv2.mean(dark, inside)[0],
        black=view.brightest <= _BLACK_LEVEL,
    )


def still_score(view: SmallView, box: Rect) -> float:
    """Rate a frame as the still of a lesion: the sharpest, largest one with the least glare rates highest.

    ``sharpness * sqrt(area of the box / area of the field of view) * (1 - glare - overexposed)``, the
    qualities being those of the box. The root makes a lesion count by its length, not by its area, so that
    a blurred frame does not win by being somewhat larger.

    Args:
        view: what ``small_view`` returned.
        box: the lesion's box, px of the frame.
    Returns:
        0 to 1.
    """
    found = measure(view, box)
    share = min(1.0, box.w * box.h / (view.rect.w * view.rect.h))
    return float(found.sharpness * share**0.5 * (1.0 - found.glare - found.overexposed))


@dataclass
class FrozenPicture:
    """Measures for how long the picture has been the same, in a video that a codec may have changed.

    Every frame is compared with the first one of the period, not with its predecessor: a slow pan adds up
    to a change, and the noise of a codec around a repeated picture does not. The picture is the same while no
    block of a grid of 18 by 32 changes its mean by more than 3 grey levels. A black picture counts as frozen;
    ``Quality.black`` tells the two apart.
    """

    _first: npt.NDArray[np.float32] | None = field(default=None, init=False)
    _since_s: float = field(default=0.0, init=False)

    def see(self, view: SmallView, time_s: float) -> float:
        """Add the next frame.

        Args:
            view: what ``small_view`` returned.
            time_s: time of the frame, seconds. One that lies before the last frame's begins a new period.
        Returns:
            Time since the first frame that looks the same, seconds; 0 for a frame that differs.
        """
        size_wh = (min(_FROZEN_HW[1], view.grey.shape[1]), min(_FROZEN_HW[0], view.grey.shape[0]))
        blocks = np.asarray(cv2.resize(view.grey, size_wh, interpolation=cv2.INTER_AREA), np.float32)
        first = self._first
        same = first is not None and first.shape == blocks.shape and time_s >= self._since_s
        if first is None or not same or float(cv2.norm(first, blocks, cv2.NORM_INF)) > _FROZEN_LEVEL:
            self._first, self._since_s = blocks, time_s
        return time_s - self._since_s


class PictureWatch:
    """Rates the pictures of one stream."""

    def __init__(self) -> None:
        self._frozen = FrozenPicture()

    def poor(self, view: SmallView, time_s: float) -> str | None:
        """Return why the next picture is poor, or None; a black one is also frozen, and reported as black.

        Args:
            view: what ``small_view`` returned.
            time_s: time of the frame, seconds.
        """
        same_s = self._frozen.see(view, time_s)
        return measure(view).poor or ("frozen" if same_s >= FROZEN_S else None)


def _inside(grey: Grey) -> Flags:
    """Mark the picture without the endoscope's border and without a margin along it, 255 or 0.

    The border is what is dark from the left or the right end of a row inwards: endoscopes show a rectangle,
    an octagon or a disc. The dark lumen inside the picture is not part of it. A frame that is all dark has
    none.
    """
    height_px, width_px = grey.shape
    lit = cv2.morphologyEx(
        cv2.threshold(grey, _BORDER_LEVEL, 255, cv2.THRESH_BINARY)[1],
        cv2.MORPH_OPEN,
        np.ones((3, 3), np.uint8),
    )
    if not cv2.countNonZero(lit):
        return np.full(grey.shape, 255, np.uint8)
    left = lit.argmax(axis=1)[:, None]
    right = width_px - lit[:, ::-1].argmax(axis=1)[:, None]
    across = np.arange(width_px)
    picture = (
        (across >= left) & (across < right) & (lit[np.arange(height_px), left[:, 0]] > 0)[:, None]
    ).view(np.uint8)
    # A frame without a border keeps its edges: only dark pixels are a border.
    size = 2 * _BORDER_MARGIN_PX + 1
    eroded = cv2.erode(picture, np.ones((size, size), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(eroded * np.uint8(255), np.uint8)


def _spots(white: Flags) -> Flags:
    """Return the parts of white areas that are narrower than glare's limit."""
    if not cv2.countNonZero(white):
        return white
    side = max(2, round(min(white.shape) * _GLARE_SIDE))
    wide = cv2.morphologyEx(white, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    return np.asarray(cv2.subtract(white, wide), np.uint8)


def _part(view: SmallView, box: Rect | None) -> tuple[slice, slice]:
    """Return the rows and columns of the copy that a box of the frame covers, about 32 px at least."""
    if box is None:
        return slice(None), slice(None)
    spans = []
    for start, length, origin, whole, side in (
        (box.y, box.h, view.rect.y, view.rect.h, view.grey.shape[0]),
        (box.x, box.w, view.rect.x, view.rect.w, view.grey.shape[1]),
    ):
        scale = side / whole
        begin, end = (start - origin) * scale, (start + length - origin) * scale
        more = max(0.0, (32 - (end - begin)) / 2)
        begin, end = begin - more, end + more
        spans.append(slice(max(0, min(side - 1, int(begin))), max(1, min(side, int(np.ceil(end))))))
    return spans[0], spans[1]


def _blur(grey: npt.NDArray[np.float32], inside: Flags, white: Flags) -> float:
    """Return the larger blur of both directions, 0 to 1."""
    counted = inside
    if cv2.countNonZero(white):
        # The edge of a highlight is sharp in a blurred frame too.
        beside = cv2.dilate(white, np.ones((5, 5), np.uint8))
        counted = np.asarray(cv2.bitwise_and(inside, cv2.bitwise_not(beside)), np.uint8)
    return max(
        _blur_along(grey, counted),
        _blur_along(np.ascontiguousarray(grey.T), np.ascontiguousarray(counted.T)),
    )


def _blur_along(grey: npt.NDArray[np.float32], counted: Flags) -> float:
    """Return the blur along columns: 1 where there is no difference that exceeds noise."""
    if grey.shape[0] < 2:
        return 1.0
    again = cv2.blur(grey, (1, _BLUR_TAPS), borderType=cv2.BORDER_REPLICATE)
    own = cv2.absdiff(grey[1:], grey[:-1])
    left = cv2.absdiff(again[1:], again[:-1])
    both = cv2.bitwise_and(counted[1:], counted[:-1])
    edges = np.maximum(np.asarray(own, np.float32) - np.float32(_NOISE), 0)
    lost = cv2.threshold(cv2.subtract(edges, left), 0.0, 0.0, cv2.THRESH_TOZERO)[1]
    return float(1.0 - cv2.mean(lost, both)[0] / (cv2.mean(edges, both)[0] + _FAINT))
